"""Which parameters decay."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from deqzoo.nn import nonnegative
from deqzoo.tasks import weight_decay_groups


def names(net: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    wanted = {id(p) for p in parameters}
    return {name for name, p in net.named_parameters() if id(p) in wanted}


def test_only_matrices_and_kernels_decay():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nonnegative(nn.Conv2d(4, 4, 3)),
        weight_norm(nn.Linear(4, 5)),
    )
    decaying, others = weight_decay_groups(net)
    # NonNegative keeps the direction first and the gain second, weight_norm the other way round.
    kernels = {
        "0.weight",
        "3.parametrizations.weight.original0",
        "4.parametrizations.weight.original1",
    }
    assert names(net, decaying["params"]) == kernels
    assert names(net, others["params"]) == {name for name, _ in net.named_parameters()} - kernels
    assert "weight_decay" not in decaying
    assert others["weight_decay"] == 0.0


def test_an_optimizer_shrinks_what_decays_alone():
    net = nn.Linear(2, 2)
    nn.init.ones_(net.weight)
    nn.init.ones_(net.bias)
    optimizer = torch.optim.AdamW(weight_decay_groups(net), lr=0.1, weight_decay=0.5)
    (net.weight.sum() * 0 + net.bias.sum() * 0).backward()
    optimizer.step()
    torch.testing.assert_close(net.weight, torch.full((2, 2), 0.95))
    torch.testing.assert_close(net.bias, torch.ones(2))


def test_frozen_parameters_and_empty_groups_are_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    net[0].requires_grad_(False)
    (group,) = weight_decay_groups(net)
    assert names(net, group["params"]) == {"1.weight"}
