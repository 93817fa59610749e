"""Explicit transformers: the same parts without a solve."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deqzoo import create_model
from deqzoo.errors import StructureError
from deqzoo.models.generation import window_length
from deqzoo.models.transformer import Transformer, TransformerConfig

from .text_nets import VOCAB, network, texts


def transformer(*, depth: int = 4, distinct: int = 2, dropout: float = 0.0) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        width=32, heads=2, hidden=48, context=16, depth=depth, distinct=distinct, dropout=dropout
    )
    net = Transformer(config, vocab_size=VOCAB).double().eval()
    torch.nn.init.normal_(net.norm_out.weight)
    return net


def by_hand(net: Transformer, tokens: Tensor, order: list[int]) -> Tensor:
    h = net.norm_in(net.table.weight[tokens])
    for which in order:
        h = net.blocks[which](h)
    return (net.norm_out(h) @ net.table.weight.T).float()


@pytest.mark.parametrize(("depth", "distinct", "order"), [(3, 3, [0, 1, 2]), (3, 1, [0, 0, 0]), (4, 2, [0, 1, 0, 1])])
def test_blocks_are_passed_in_turns(depth, distinct, order):
    net, tokens = transformer(depth=depth, distinct=distinct), texts()
    assert len(net.blocks) == distinct
    torch.testing.assert_close(net(tokens), by_hand(net, tokens, order))


def test_its_blocks_are_those_of_the_equilibrium_transformer():
    # All that a cell has besides is the vector that carries its state on.
    explicit, implicit = transformer(distinct=2), network(blocks=2)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (explicit, implicit)]
    assert sizes[1] - sizes[0] == 32
    assert [b.state_dict().keys() for b in explicit.blocks] == [b.state_dict().keys() for b in implicit.cell.blocks]


@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_token_changes_no_score_before_its_own(place):
    net, tokens = transformer(), texts()
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % VOCAB
    difference = (net(tokens) - net(changed)).abs().amax((0, 2))
    assert difference[:place].sum() == 0 and difference[place:].min() > 1e-6


def test_losses_are_those_of_the_scores_and_nothing_is_remembered():
    net, tokens = transformer(), texts()
    losses, memory = net.score(tokens[:, :-1], tokens[:, 1:])
    wanted = -net(tokens[:, :-1]).log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(losses, wanted)
    assert memory is None and net.config.memory == 0
    with pytest.raises(StructureError, match=r"memory of 4 positions.*keeps none.*leave it out"):
        net(tokens, (torch.zeros(3, 4, 32),))


def test_it_goes_on_with_a_text_without_dropout():
    net, prompt = transformer(dropout=0.5).train(), texts(2, 5)
    text = prompt
    for _ in range(20):
        window = text[:, -window_length(text.shape[1], 16) :]
        text = torch.cat((text, by_hand(net, window, [0, 1, 0, 1])[:, -1:].argmax(-1)), dim=1)
    found = torch.stack(list(net.generate(prompt, max_new_tokens=20, temperature=0)), dim=1)
    torch.testing.assert_close(found, text[:, 5:])


def test_dropout_reaches_every_block_in_training():
    net, tokens = transformer(dropout=0.5).train(), texts()
    masks = []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda module, args: masks.append(args[2]))
    net(tokens)
    assert [len(pair) for pair in masks] == [2] * 4
    assert masks[0] is masks[2] and masks[1] is masks[3] and masks[0] is not masks[1]
    assert all(mask.shape == (3, 1, 32) for pair in masks for mask in pair)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"distinct=2 blocks for depth=3.*in turns.*divides"):
        transformer(depth=3)
    with pytest.raises(ValueError, match=r"width=30 for heads=4.*pairs.*multiple of 8"):
        TransformerConfig(width=30, heads=4, hidden=8, context=8, depth=2, distinct=2)


@pytest.mark.parametrize(
    ("name", "compared_with", "depth"),
    [
        ("transformer-shakespeare-tiny", "deq-lm-shakespeare-tiny", 2),
        ("transformer-shakespeare-tiny-tied", "deq-lm-shakespeare-tiny", 16),
        ("transformer-ptb-tiny", "deq-lm-ptb-tiny", 2),
        ("transformer-ptb-tiny-tied", "deq-lm-ptb-tiny", 16),
    ],
)
def test_baselines_have_the_size_of_what_they_are_compared_with(name: str, compared_with: str, depth: int):
    net: Any = create_model(name)
    compared: Any = create_model(compared_with)
    extra = compared.cell.carry.numel()
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in compared.parameters()) - extra
    assert net.config.depth == depth
    for size in ("width", "heads", "hidden", "context", "dropout"):
        assert getattr(net.config, size) == getattr(compared.config, size)
    with pytest.raises(ValueError, match="no equilibrium to solve"):
        create_model(name, max_steps=3)
