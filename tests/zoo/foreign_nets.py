"""Networks laid out as other projects lay theirs out: the same names and shapes, and mathematics of our own words."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NormedWeight(nn.Module):
    """A convolution or matrix whose weight is g v / ‖v‖, saved as weight_g and weight_v."""

    def __init__(self, weight: Tensor, *, nonnegative: bool = False) -> None:
        super().__init__()
        weight = weight.abs() if nonnegative else weight
        norms = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
        self.weight_g = nn.Parameter(norms * torch.rand_like(norms).add(0.5))
        self.weight_v = nn.Parameter(weight.clone())

    @property
    def weight(self) -> Tensor:
        norms = self.weight_v.flatten(1).norm(dim=1).view_as(self.weight_g)
        return self.weight_g * self.weight_v / norms

    def forward(self, x: Tensor) -> Tensor:
        if self.weight_v.ndim == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, padding=self.weight_v.shape[-1] // 2)


def shaken(norm: nn.Module) -> Any:
    """Returns a norm with statistics and factors that are not those it starts with."""
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return norm


class PositiveBlock(nn.Module):
    """block.deq.f.W of the pcDEQ code, iterated long enough."""

    def __init__(self, width: int, activation: Any, *, dense: bool) -> None:
        super().__init__()
        shape = (width, width) if dense else (width, width, 3, 3)
        self.deq = nn.Module()
        self.deq.f = nn.Module()
        self.deq.f.W = NormedWeight(torch.randn(shape) * 0.05, nonnegative=True)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        p = F.softplus(x, beta=5)
        z: Any = torch.zeros_like(p)
        for _ in range(60):
            z = self.activation(self.deq.f.W(z) + p)  # pyright: ignore
        return z


class LinearPositive(nn.Module):
    """The dense pcDEQ-1 of the published code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(784, width)
        self.bn1 = shaken(nn.BatchNorm1d(width))
        self.block = PositiveBlock(width, torch.tanh, dense=True)
        self.bn2 = shaken(nn.BatchNorm1d(width))
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.bn2(self.block(self.bn1(self.linear1(x.flatten(1))))))


class MultiPositive(nn.Module):
    """The pcDEQ-1 of three convolutional equilibria."""

    def __init__(self, in_chans: int, widths: tuple[int, int, int], activation: Any) -> None:
        super().__init__()
        a, b, c = widths
        self.conv1 = nn.Conv2d(in_chans, a, 3, padding=1)
        self.downsample1 = nn.Conv2d(a, b, 3, stride=2)
        self.downsample2 = nn.Conv2d(b, c, 3, stride=2)
        for i, width in enumerate(widths):
            self.add_module(f"block{i + 1}", PositiveBlock(width, activation, dense=False))
            for j in (1, 2):
                self.add_module(f"bn{2 * i + j}", shaken(nn.BatchNorm2d(width)))
        self.classifier = nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        net: Any = self
        for i, entry in enumerate((net.conv1, net.downsample1, net.downsample2), start=1):
            norm_in, block, norm_out = (
                net.get_submodule(f"{n}") for n in (f"bn{2 * i - 1}", f"block{i}", f"bn{2 * i}")
            )
            x = norm_out(F.max_pool2d(block(norm_in(entry(x))), 3, 1, 1))
        return net.classifier(F.avg_pool2d(x, 4).flatten(1))


class Residual(nn.Module):
    """fullstage.branches.i.blocks.0 of the MDEQ code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = NormedWeight(torch.randn(5 * width, width, 3, 3) * 0.05)
        self.gn1 = shaken(nn.GroupNorm(8, 5 * width))
        self.conv2 = NormedWeight(torch.randn(width, 5 * width, 3, 3) * 0.05)
        self.gn2 = shaken(nn.GroupNorm(8, width))
        self.gn3 = shaken(nn.GroupNorm(8, width))

    def forward(self, z: Tensor, injection: Tensor | float) -> Tensor:
        y = self.gn2(self.conv2(F.relu(self.gn1(self.conv1(z)))) + injection)
        return self.gn3(F.relu(y + z))


def bottleneck(width: int, inner: int) -> nn.Module:
    """Returns incre_modules.i.0."""
    block: Any = nn.Module()
    block.conv1, block.bn1 = nn.Conv2d(width, inner, 1, bias=False), shaken(nn.BatchNorm2d(inner, affine=False))
    block.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
    block.bn2 = shaken(nn.BatchNorm2d(inner, affine=False))
    block.conv3 = nn.Conv2d(inner, 4 * inner, 1, bias=False)
    block.bn3 = shaken(nn.BatchNorm2d(4 * inner, affine=False))
    shortcut = nn.Conv2d(width, 4 * inner, 1, bias=False)
    block.downsample = nn.Sequential(shortcut, shaken(nn.BatchNorm2d(4 * inner)))
    return block


class TinyMultiscale(nn.Module):
    """The small MDEQ of two scales for CIFAR-10: f, and what comes before and after it.

    Args:
        full: what the equilibrium's part is called: fullstage, or full_stage in TorchDEQ.
        normed_fusion: whether the fusion's convolutions have norms too, as they have in TorchDEQ.
        post_affine: whether the last norms have factors.
    """

    def __init__(self, full: str, *, normed_fusion: bool, post_affine: bool) -> None:
        super().__init__()
        stem = [nn.Conv2d(3, 24, 3, padding=1, bias=False), shaken(nn.BatchNorm2d(24)), nn.ReLU()]
        stem += [nn.Conv2d(24, 24, 3, padding=1, bias=False), shaken(nn.BatchNorm2d(24)), nn.ReLU()]
        self.downsample = nn.Sequential(*stem)
        stage: Any = nn.Module()
        branches = [nn.Module() for _ in range(2)]
        for branch in branches:
            branch.blocks = nn.ModuleList([Residual(24)])
        stage.branches = nn.ModuleList(branches)
        up: Any = nn.Module()
        up.net = nn.ModuleDict({"conv": self._conv(1, 1, normed_fusion), "gnorm": shaken(nn.GroupNorm(8, 24))})
        down: Any = nn.Module()
        step = nn.ModuleDict({"conv": self._conv(3, 2, normed_fusion), "gnorm": shaken(nn.GroupNorm(8, 24))})
        down.net = nn.ModuleList([step])
        stage.fuse_layers = nn.ModuleList(
            [nn.ModuleDict({"1": up}), nn.ModuleDict({"0": down})]  # a ModuleList with None in its diagonal
        )
        post = [
            nn.ModuleDict(
                {
                    "conv": NormedWeight(torch.randn(24, 24, 1, 1) * 0.2),
                    "gnorm": nn.GroupNorm(4, 24, affine=post_affine),
                }
            )
            for _ in range(2)
        ]
        if post_affine:
            for part in post:
                shaken(part["gnorm"])
        stage.post_fuse_layers = nn.ModuleList(post)
        self.add_module(full, stage)
        self.incre_modules = nn.ModuleList([nn.Sequential(bottleneck(24, inner)) for inner in (8, 16)])
        halve = [nn.Conv2d(32, 64, 3, stride=2, padding=1), shaken(nn.BatchNorm2d(64)), nn.ReLU()]
        self.downsamp_modules = nn.ModuleList([nn.Sequential(*halve)])
        self.final_layer = nn.Sequential(nn.Conv2d(64, 200, 1), shaken(nn.BatchNorm2d(200)), nn.ReLU())
        self.classifier = nn.Linear(200, 10)
        self.full, self.strided = full, normed_fusion

    @staticmethod
    def _conv(taps: int, stride: int, normed: bool) -> nn.Module:
        conv = nn.Conv2d(24, 24, taps, stride=stride, padding=taps // 2, bias=False)
        return NormedWeight(conv.weight.detach()) if normed else conv

    def f(self, z: tuple[Tensor, Tensor], u: Tensor) -> tuple[Tensor, Tensor]:
        """The map whose equilibrium is wanted."""
        stage: Any = self.get_submodule(self.full)
        fine, coarse = (stage.branches[i].blocks[0](z[i], (u, 0.0)[i]) for i in range(2))
        up, down = stage.fuse_layers[0]["1"].net, stage.fuse_layers[1]["0"].net[0]
        weight = down["conv"].weight
        raised = F.interpolate(up["gnorm"](F.conv2d(coarse, up["conv"].weight)), scale_factor=2.0)
        lowered = down["gnorm"](F.conv2d(fine, weight, stride=2, padding=1))
        sums = (fine + raised, lowered + coarse)
        out = [post["gnorm"](post["conv"](F.relu(s))) for post, s in zip(stage.post_fuse_layers, sums, strict=True)]
        return out[0], out[1]


class DenseMonotone(nn.Module):
    """SingleFcNet of the monDEQ code, iterated forward and backward long enough."""

    def __init__(self, width: int, margin: float) -> None:
        super().__init__()
        self.mon: Any = nn.Module()
        self.mon.linear_module = nn.Module()
        self.mon.linear_module.U = nn.Linear(784, width)
        self.mon.linear_module.A = nn.Linear(width, width, bias=False)
        self.mon.linear_module.B = nn.Linear(width, width, bias=False)
        self.Wout = nn.Linear(width, 10)
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        linear = self.mon.linear_module
        a, b = linear.A.weight, linear.B.weight
        w = (1 - self.margin) * torch.eye(len(a)) - a.T @ a + b - b.T
        u = linear.U(x.flatten(1))
        z = torch.zeros_like(u)
        for _ in range(400):
            z = F.relu(0.8 * z + 0.2 * (z @ w.T + u))
        return self.Wout(z)
