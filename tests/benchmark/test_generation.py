"""The cost of generated tokens: counted right, and of the same text."""

import torch

from deqzoo.benchmark.generation import Row, compare, table
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.solvers import Picard


def test_each_way_pays_for_what_it_solves():
    torch.manual_seed(0)
    config = DEQTransformerConfig(width=16, heads=2, hidden=16, context=8)
    net = DEQTransformer(config, vocab_size=7, solver=Picard(rtol=0, max_steps=5)).eval()
    rows = {row.way: row for row in compare(net, torch.tensor([[1, 2, 3]]), num_tokens=6)}
    assert [row.evals for row in rows.values()] == [5, 5, 5]
    # After the first, which is not counted: windows of 5, 6, 7 and 8, then of 4, where all solve anew, and 5.
    assert rows["anew"].positions == 5 * (5 + 6 + 7 + 8 + 4 + 5) / 6
    assert rows["warm"].positions == rows["cold"].positions == 5 * (1 + 1 + 1 + 1 + 4 + 1) / 6
    assert all(row.milliseconds > 0 for row in rows.values()) and rows["warm"].agreement == 1


def test_tight_solves_choose_the_same_text():
    torch.manual_seed(0)
    config = DEQTransformerConfig(width=16, heads=2, hidden=16, context=8)
    net = DEQTransformer(config, vocab_size=7, solver=Picard(rtol=1e-11, max_steps=300)).double().eval()
    assert [row.agreement for row in compare(net, torch.tensor([[1]]), num_tokens=12)] == [1, 1, 1]


def test_the_table_shows_ratios():
    rows = [
        Row(way=way, evals=evals, positions=evals, milliseconds=ms, agreement=1.0)
        for way, evals, ms in (("warm", 6.0, 3.0), ("cold", 8.0, 4.0), ("anew", 10.0, 12.0))
    ]
    told = table(rows)
    assert "| warm | 6.0 | 6 | 3.00 | 0.250 | 100.0% |" in told
    assert "Warm against cold: 0.75 of the evaluations, 0.75 of the time." in told
