"""Explicit baselines: their sizes, and that they do all that implicit models do."""

import pytest
import torch
from torch import nn

from deqzoo import create_model, describe
from deqzoo.errors import StructureError
from deqzoo.models.explicit import SmallResNet


@pytest.mark.parametrize(
    ("name", "parameters", "convolutions"),
    [
        ("resnet18-cifar", 11_173_962, 20),
        ("resnet18-cifar-tiny", 11_173_962, 20),
        ("resnet20-cifar", 272_474, 21),
        ("resnet14-cifar", 167_774, 15),
        ("resnet14-cifar-fine", 167_662, 14),
        ("resnet14-cifar-fine-noaug", 167_662, 14),
        ("resnet8-mnist", 77_754, 9),
    ],
)
def test_sizes(name: str, parameters: int, convolutions: int):
    assert describe(name).num_parameters == parameters
    net = create_model(name)
    # With those on the shortcuts, which the names do not count.
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == convolutions
    assert isinstance(net, SmallResNet)
    assert net(torch.randn(2, net.in_chans, 20, 16)).shape == (2, 10)


def test_maps_are_halved_after_the_first_stage():
    net = create_model("resnet20-cifar", num_classes=0)
    assert isinstance(net, SmallResNet)
    maps = net.forward_maps(torch.randn(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_dropout_is_behind_stages_and_of_pooled_features_in_training():
    net = SmallResNet((4, 6), blocks=1, dropout=0.5).eval()
    x = torch.randn(2, 3, 16, 16)
    whole = net.forward_maps(x)[0]
    net.stages[0][-1].train()
    dropped = net.forward_maps(x)[0]
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert 0.4 < kept.sum() / (whole != 0).sum() < 0.6
    net.dropout.train()
    assert set(net.pool(torch.ones(64, 6, 2, 2)).unique().tolist()) == {0, 2}


def test_there_is_no_solver_to_choose():
    with pytest.raises(ValueError, match="no equilibrium to solve"):
        create_model("resnet20-cifar", max_steps=3)
    with pytest.raises(StructureError, match="takes batches of images"):
        create_model("resnet20-cifar")(torch.randn(1, 1, 32, 32))


def test_training_reduces_the_loss():
    torch.manual_seed(0)
    net = create_model("resnet8-mnist")
    x, labels = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
