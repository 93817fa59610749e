"""Penalties on equilibria in training."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from deqzoo.stability import dominant_growth, jacobian_penalty
from deqzoo.tasks import GrowthPenalty, ImageClassifier, JacobianPenalty

from .tiny import TinyNet, make_batches, train


def run(*callbacks: Callback, epochs: int = 1) -> TinyNet:
    torch.manual_seed(0)
    net = TinyNet()
    with torch.no_grad():
        net.equilibrium.cell.linear.weight.mul_(1.8)  # contracts by 0.9 at the origin
    net.equilibrium.unconverged = "ignore"
    task = ImageClassifier(net, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.5))
    train(task, make_batches(4), max_epochs=epochs, callbacks=list(callbacks))
    return net


@torch.no_grad()
def equilibria_of(net: TinyNet) -> tuple[torch.Tensor, torch.Tensor]:
    [(images, _)] = make_batches(1)
    x = net.eval().norm(net.entry(images.flatten(1)))
    z = net.equilibrium(x)
    assert isinstance(z, torch.Tensor)
    return z, x


def test_growth_is_pushed_below_its_target():
    free, held = run(epochs=5), run(GrowthPenalty(weight=10.0, target=0.3, probability=1.0), epochs=5)
    growths = [dominant_growth(net.equilibrium.cell, *equilibria_of(net)).max().detach().item() for net in (free, held)]
    assert growths[1] < 0.35
    assert growths[0] > 0.5


def test_a_jacobian_is_made_smaller():
    free, held = run(epochs=5), run(JacobianPenalty(weight=10.0, probability=1.0), epochs=5)
    cells = [(net.equilibrium.cell, *equilibria_of(net)) for net in (free, held)]
    sizes = [jacobian_penalty(*cell, samples=50).mean().detach().item() for cell in cells]
    assert sizes[1] < 0.5 * sizes[0]


def test_the_loss_that_is_descended_holds_the_penalty():
    class Losses(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_before_backward(self, trainer, pl_module, loss):
            self.seen.append(loss.item())

    losses = Losses()
    run(GrowthPenalty(weight=1000.0, target=0.1, probability=1.0), losses)
    assert len(losses.seen) == 4
    assert losses.seen[0] > 100  # a loss of cross-entropy is near 2 at first


def test_leaves_nothing_behind():
    net = run(GrowthPenalty(probability=1.0), JacobianPenalty(probability=1.0))
    assert not net.equilibrium._forward_hooks


def test_a_network_without_equilibrium_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    net.num_classes = 6  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Sequential has no equilibrium that could be penalised"):
        train(ImageClassifier(net), make_batches(1), max_epochs=1, callbacks=[GrowthPenalty()])


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"probability": 0.0}, {"probability": 1.5}])
@pytest.mark.parametrize("kind", [GrowthPenalty, JacobianPenalty])
def test_refuses_penalties_that_are_none(kind, options):
    with pytest.raises(ValueError, match=rf"{kind.__name__} got .* leave the callback away"):
        kind(**options)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_refuses_targets_that_do_not_contract(target):
    with pytest.raises(ValueError, match=f"target={target}"):
        GrowthPenalty(target=target)
