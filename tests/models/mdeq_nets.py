"""Small MDEQs, and images for them."""

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit
from deqzoo.models.mdeq import MDEQ, MDEQConfig
from deqzoo.solvers import Anderson, Broyden

TWO = MDEQConfig(channels=(4, 6), head_channels=(2, 3), num_features=5, expansion=2, groups=2)
THREE = MDEQConfig(channels=(4, 6, 8), head_channels=(2, 3, 2), num_features=5, expansion=2, groups=2, halvings=1)
ONE = MDEQConfig(channels=(4,), head_channels=(2,), num_features=5, expansion=2, groups=2)
every_size = pytest.mark.parametrize("config", [ONE, TWO, THREE], ids=["one", "two", "three"])

BUDGET = Broyden(rtol=0, max_steps=8)


def network(config: MDEQConfig, *, in_chans: int = 3, solver=BUDGET, adjoint=Implicit(solver=BUDGET), seed: int = 0):
    """A network with a fixed budget, which never warns."""
    torch.manual_seed(seed)
    return MDEQ(config, in_chans=in_chans, num_classes=3, solver=solver, adjoint=adjoint)


def contracting(config: MDEQConfig) -> MDEQ:
    """A network in float64 whose map contracts, in eval mode: the blocks say little besides the injection."""
    net = network(config, solver=Anderson(rtol=1e-12, max_steps=200)).double()
    with torch.no_grad():
        for block in net.equilibrium.cell.blocks:
            block.reduce.weight = 0.1 * block.reduce.weight
            block.norm.weight.fill_(0.5)
            block.norm.bias.normal_()
        for post in net.equilibrium.cell.post:
            post[2].weight.fill_(0.1)
            post[2].bias.normal_()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        # What batch norms see here is what they expect in eval mode.
        net(images(8, size=16, dtype=torch.float64))
    return net.eval()


def images(batch: int = 4, channels: int = 3, size: int = 16, *, seed: int = 1, dtype=torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=dtype)


def calls(net: MDEQ) -> list[tuple]:
    """Returns a list that grows by the arguments of every evaluation of the cell."""
    seen: list[tuple] = []
    net.equilibrium.cell.register_forward_pre_hook(lambda module, args: seen.append(args))
    return seen
