"""DEQ transformers: causal, solved, with gradients, memory and tables that agree with their definitions."""

import copy

import pytest
import torch
from torch.nn import functional as F

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import StructureError
from deqzoo.models.deq_transformer import (
    deq_lm_ptb,
    deq_lm_shakespeare,
    deq_lm_shakespeare_tiny,
    deq_lm_wikitext103,
)
from deqzoo.models.deq_transformer_parts import TransformerCell
from deqzoo.models.token_table import AdaptiveTable
from deqzoo.models.transformer_parts import attend
from deqzoo.nn import observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Picard

from .text_nets import VOCAB, config, network, texts

LIMITS = {
    deq_lm_shakespeare_tiny: (700_000, 800_000, 65),
    deq_lm_shakespeare: (9_000_000, 10_650_000, 65),
    deq_lm_ptb: (22_000_000, 24_000_000, 10_000),
    deq_lm_wikitext103: (95_000_000, 102_000_000, 267_735),
}


@pytest.mark.parametrize(("build", "least", "most", "vocab_size"), [(b, *limits) for b, limits in LIMITS.items()])
def test_configurations_keep_to_their_parameter_budgets(build, least, most, vocab_size):
    with torch.device("meta"):
        net = build()
    assert least <= sum(p.numel() for p in net.parameters()) <= most
    assert net.vocab_size == vocab_size


@pytest.mark.parametrize("build", LIMITS)
def test_configurations_take_another_vocabulary(build):
    with torch.device("meta"):
        assert build(vocab_size=77).vocab_size == 77


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_token_changes_no_score_before_its_own(blocks, place):
    net, tokens = network(blocks=blocks), texts()
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % VOCAB
    difference = (net(tokens) - net(changed)).abs().amax((0, 2))
    assert difference[:place].sum() == 0
    # It does change every score from there on.
    assert difference[place:].min() > 1e-6


def test_plain_iteration_is_causal_at_any_budget():
    net, tokens = network(solver=Picard(rtol=0, max_steps=3)), texts()
    changed = torch.cat((tokens[:, :9], texts(seed=5)[:, 9:]), dim=1)
    torch.testing.assert_close(net(tokens)[:, :9], net(changed)[:, :9], rtol=0, atol=0)


def test_a_text_does_not_depend_on_its_batch():
    net, tokens = network(blocks=2), texts(4)
    alone = torch.cat([net(row[None]) for row in tokens])
    torch.testing.assert_close(net(tokens), alone, rtol=1e-10, atol=1e-10)


def test_the_hidden_sequence_is_an_equilibrium_of_the_cell():
    net, tokens = network(blocks=2), texts()
    with torch.no_grad(), observe_equilibria(net) as seen:
        scores = net(tokens)
    z = seen.solutions[0][1].value
    x = net.norm_in(F.embedding(tokens, net.table.weight))
    fz = net.cell.norm(net.cell.blocks[1](net.cell.blocks[0](net.cell.carry * z + x)))
    torch.testing.assert_close(fz, z, rtol=0, atol=1e-9)
    # Tokens are scored by the vectors by which they are read.
    torch.testing.assert_close(scores, F.linear(net.norm_out(z), net.table.weight).float())


def test_fresh_networks_converge_fast():
    torch.manual_seed(0)
    net = deq_lm_shakespeare_tiny(solver=Picard(rtol=1e-3, max_steps=25)).eval()
    with torch.no_grad(), observe_equilibria(net) as seen:
        net(texts(4, 64, vocab_size=65))
    assert seen.converged.all() and int(seen.num_steps.max()) <= 20


def test_gradients_agree_with_a_long_unroll():
    tokens = texts()
    grads = []
    for solver, adjoint in (
        (Picard(rtol=0, max_steps=120), Unrolled()),
        (Anderson(rtol=1e-13, max_steps=300), Implicit(solver=Anderson(rtol=1e-12, max_steps=300))),
    ):
        net = network(solver=solver, adjoint=adjoint, memory=8, blocks=2)
        memory = tuple(
            torch.randn(3, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
        )
        losses, _ = net.score(tokens[:, :-1], tokens[:, 1:], memory)
        losses.double().mean().backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    for name, wanted in grads[0].items():
        assert wanted is not None and wanted.abs().max() > 0, name
        torch.testing.assert_close(grads[1][name], wanted, rtol=1e-5, atol=1e-9, msg=name)


def test_losses_are_those_of_the_scores():
    net, tokens = network(), texts()
    losses, memory = net.score(tokens[:, :-1], tokens[:, 1:])
    wanted = -net(tokens[:, :-1]).log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    assert memory is None and losses.dtype == torch.float32
    torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize("blocks", [1, 2])
def test_segments_with_memory_are_the_whole_text(blocks):
    # While everything before fits into the memory, a segment sees just what it would see in one longer text.
    net, tokens = network(blocks=blocks, context=15, memory=10), texts()
    whole, _ = net.score(tokens[:, :15], tokens[:, 1:16])
    parts, memory = [], None
    for first, last in ((0, 4), (4, 10), (10, 15)):
        losses, memory = net.score(tokens[:, first:last], tokens[:, first + 1 : last + 1], memory)
        parts.append(losses)
        assert memory is not None and memory[0].shape[1] == min(last, 10) and not memory[0].requires_grad
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-6, atol=1e-6)
    without, _ = net.score(tokens[:, 10:15], tokens[:, 11:16])
    assert (without - parts[-1]).abs().max() > 1e-3


def test_a_memory_keeps_the_last_positions():
    tokens = texts()
    short, long = network(memory=3, blocks=2), network(memory=16, blocks=2)
    _, kept = short.score(tokens[:, :8], tokens[:, 1:9])
    _, everything = long.score(tokens[:, :8], tokens[:, 1:9])
    for few, all_of_them in zip(kept, everything, strict=True):
        torch.testing.assert_close(few, all_of_them[:, -3:], rtol=0, atol=0)
    _, later = short.score(tokens[:, 8:10], tokens[:, 9:11], kept)
    for before, after in zip(kept, later, strict=True):
        assert after.shape == (3, 3, 32)
        torch.testing.assert_close(after[:, 0], before[:, 2], rtol=0, atol=0)


def test_weights_learn_through_a_memory():
    net, tokens = network(memory=8), texts()
    _, memory = net.score(tokens[:, :8], tokens[:, 1:9])
    seen = net.cell.remembered(memory)
    values = torch.autograd.grad(seen[0][1].sum(), net.cell.blocks[0].attention.qkv.weight)[0]
    assert values.abs().max() > 0


def test_each_position_has_a_residual_of_its_own():
    net, tokens = network(solver=Picard(rtol=0, max_steps=2)), texts()
    with torch.no_grad(), observe_equilibria(net) as seen:
        net(tokens)
    z = seen.solutions[0][1].value
    residual = net.residual(tokens, z)
    assert residual.shape == tokens.shape
    fz = net.cell(z, net.embed(tokens), (), ())
    torch.testing.assert_close(residual[1, 3], (fz - z)[1, 3].norm() / fz[1, 3].norm())
    set_runtime(net, solver=Picard(rtol=1e-10, max_steps=200))
    with torch.no_grad(), observe_equilibria(net) as seen:
        net(tokens)
    assert net.residual(tokens, seen.solutions[0][1].value).max() < 1e-8


def test_residuals_count_the_memory_in():
    net, tokens = network(memory=8), texts()
    _, memory = net.score(tokens[:, :8], tokens[:, 1:9])
    with observe_equilibria(net) as seen:
        net.score(tokens[:, 8:15], tokens[:, 9:], memory)
    z = seen.solutions[0][1].value
    assert net.residual(tokens[:, 8:15], z, memory).max() < 1e-10 < net.residual(tokens[:, 8:15], z).max()


def test_dropout_is_constant_in_a_solve_and_absent_in_evaluation():
    net, tokens = network(dropout=0.4, blocks=2).train(), texts()
    with observe_equilibria(net) as seen:
        torch.manual_seed(3)
        first = net(tokens)
        torch.manual_seed(3)
        again = net(tokens)
        other = net(tokens)
    assert seen.converged.all()
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().max() > 1e-3
    net.eval()
    torch.testing.assert_close(net(tokens), network(blocks=2)(tokens), rtol=0, atol=0)


def test_each_branch_has_a_mask_of_its_own():
    torch.manual_seed(0)
    block, h = network().cell.blocks[0], torch.randn(3, 5, 32, dtype=torch.float64)
    first, second = (torch.randint(2, (3, 1, 32)).double() for _ in range(2))
    middle = h + first * block.attention_out(block.attention(block.attention_in(h), None))
    wanted = middle + second * block.gated_out(block.gated(block.gated_in(middle)))
    torch.testing.assert_close(block(h, None, (first, second)), wanted)


def test_dropout_leaves_texts_causal():
    net, tokens = network(dropout=0.4).train(), texts()
    changed = torch.cat((tokens[:, :9], texts(seed=5)[:, 9:]), dim=1)
    scores = []
    for text in (tokens, changed):
        torch.manual_seed(3)
        scores.append(net(text)[:, :9])
    torch.testing.assert_close(*scores, rtol=0, atol=1e-12)


def test_adaptive_tables_score_and_read_every_token():
    net = network(cutoffs=(5, 12), vocab_size=20)
    tokens = torch.arange(20).view(2, 10)
    scores = net(tokens)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2, 10))
    losses, _ = net.score(tokens, tokens.flip(1))
    torch.testing.assert_close(losses, -scores.gather(2, tokens.flip(1)[..., None])[..., 0])
    # Every cluster's vectors take part in reading: what a token is changes what is said after it.
    read = net.table(tokens).flatten(0, 1)
    assert torch.linalg.matrix_rank(torch.cat((read[:5], read[5:12], read[12:]))) >= 5
    assert torch.cdist(read, read).add(torch.eye(20)).min() > 1e-3
    softmax = net.table.softmax
    wanted = net.table.widen[1](softmax.tail[1][1].weight[14 - 12])
    torch.testing.assert_close(read[14], wanted)
    torch.testing.assert_close(read[3], softmax.head.weight[3])


def test_clusters_beyond_the_vocabulary_are_left_out():
    assert not isinstance(network(cutoffs=(50,), vocab_size=20).table, AdaptiveTable)


def test_attention_in_bfloat16_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    for length in (7, 3, 1):
        k, v = (torch.randn(2, 3, 7, 8, generator=generator) for _ in range(2))
        q = torch.randn(2, 3, length, 8, generator=generator)
        half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16()).float()
        torch.testing.assert_close(half, attend(q, k, v), rtol=0.05, atol=0.03)


def test_training_in_bfloat16_keeps_a_float32_state():
    net = network(solver=Picard(rtol=0, max_steps=6), adjoint=Implicit(solver=Picard(rtol=0, max_steps=4))).float()
    tokens = texts()
    with torch.autocast("cpu", torch.bfloat16), observe_equilibria(net) as seen:
        losses, _ = net.score(tokens[:, :-1], tokens[:, 1:])
    assert seen.solutions[0][1].value.dtype == losses.dtype == torch.float32
    assert net.cell.initial_state(torch.zeros(1, 2, 32, dtype=torch.bfloat16), (), ()).dtype == torch.float32
    losses.mean().backward()
    exact, _ = net.score(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.05)


def test_weights_have_one_name_each_and_copies_are_independent():
    net = network(cutoffs=(5,), vocab_size=20)
    names = list(net.state_dict())
    assert len(names) == len({id(p) for p in net.state_dict().values()}) == len(list(net.parameters()))
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    tokens = texts(vocab_size=20)
    torch.testing.assert_close(twin(tokens), net(tokens), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (torch.zeros(2, 5), ("dtype torch.float32", "int64", "encode")),
        (torch.zeros(5, dtype=torch.long), ("shape (5,)", "(B, T)", "tokens[None]")),
        (torch.zeros(2, 0, dtype=torch.long), ("without tokens", "nothing to continue", "one token")),
        (torch.zeros(2, 17, dtype=torch.long), ("17 tokens", "context is 16", "tokens[:, -16:]")),
        (torch.tensor([[0, 11]]), ("token 11", "vocabulary of 11", "encode the text")),
        (torch.tensor([[-1, 3]]), ("token -1", "from 0 to 10", "encode the text")),
    ],
)
def test_texts_that_do_not_fit_are_named(tokens, words):
    net = network()
    for use in (net, lambda t: net.generate(t, max_new_tokens=1), lambda t: net.score(t, t)):
        with pytest.raises(StructureError) as error:
            use(tokens)
        assert all(word in str(error.value) for word in words)


def test_targets_and_memories_that_do_not_fit_are_named():
    net, tokens = network(memory=4), texts()
    with pytest.raises(StructureError, match=r"targets of shape \(3, 15\).*one target.*tokens\[:, 1:\]"):
        net.score(tokens, tokens[:, 1:])
    with pytest.raises(StructureError, match=r"memory of shapes \[\(2, 4, 32\)\].*remembers \(3, M, 32\).*score"):
        net.score(tokens, tokens, (torch.zeros(2, 4, 32),))
    with pytest.raises(StructureError, match=r"memory of 5 positions.*keeps 4.*score"):
        net.score(tokens, tokens, (torch.zeros(3, 5, 32),))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 30, "heads": 4}, "width=30 for heads=4.*pairs.*multiple of 8"),
        ({"context": 0}, "context=0.*start at 1"),
        ({"memory": -1}, "memory=-1.*start at 0"),
        ({"cutoffs": (5, 5)}, "growing rarity"),
        ({"cutoffs": (1, 2, 3)}, "3 cutoffs for width=32.*64 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_vocabulary_of_one_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size=1.*nothing to predict"):
        network(vocab_size=1)


def test_the_cell_maps_any_state_onto_spheres():
    # Hence an equilibrium exists whatever the weights are.
    torch.manual_seed(0)
    cell = TransformerCell(config())
    for scale in (0.01, 1.0, 100.0):
        fz = cell(scale * torch.randn(2, 5, 32), torch.randn(2, 5, 32), (), ())
        torch.testing.assert_close(fz.square().mean(-1), torch.ones(2, 5), rtol=1e-3, atol=1e-3)
