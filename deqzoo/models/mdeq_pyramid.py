"""Multiscale deep equilibrium models that are fed at every scale.

MDEQ (Bai, Koltun & Kolter 2020, arXiv 2006.08656) with a map that is cheaper and calmer: one hidden layer in which all
scales meet, and a norm at the end that keeps the state on spheres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint, Phantom
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.models.mdeq import PAPER
from deqzoo.models.multiscale import Multiscale
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import Cell, ImplicitModule
from deqzoo.solvers import Anderson, FixedPointSolver

# From residuals of 4e-3 to 5e-5 the losses of mdeq-cifar-tiny and mdeq-cifar-tiny-noaug on 1,500 training images, and
# that of mdeq-cifar-deep-tiny on 500, stay within 0.1 %. Broyden is quicker on hard images, but some have several
# equilibria, and rounding would decide at which it ends. No image is given up before its budget is spent: residuals may
# rise for more than twenty steps and fall all the same, as those of two test images of mdeq-cifar-tiny-noaug do.
_ANDERSON = Anderson(rtol=3e-3, max_steps=50, patience=50)
# The weights were trained with Phantom too, of one or two steps. Implicit gradients are huge where a map hardly
# contracts, as that of a pretrained network does for some images, and undo it within a few steps.
_PHANTOM = Phantom(steps=3, damping=1.0)

_BRANCH_GAIN = 0.5


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """The sizes of a multiscale equilibrium model that is fed at every scale.

    Attributes:
        widths: channels of each scale, finest first; each scale has half the height and width of the one before.
        stem: channels of the first convolution, which sees whole images.
        num_features: channels that the head gives to the classifier.
        stride: pixels of the image per pixel of the finest scale, along each side: 1 or 2.
        pooled: whether the maximum of 2x2 pixels halves maps after a convolution, where that would have a stride of 2.
        blocks: explicit residual blocks ahead of the equilibrium, at each scale.
        groups: of the norms in the cell.
        dropout: probability to drop a value of an injection, for a whole solve, or of the pooled features.

    """

    widths: tuple[int, ...]
    stem: int
    num_features: int
    stride: int = 2
    pooled: bool = False
    blocks: int = 0
    groups: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths or any(width % self.groups for width in self.widths):
            raise ValueError(
                f"Got widths={self.widths} for groups={self.groups}. There is one width per scale, and norms divide "
                "each into groups of equal size: choose multiples of it."
            )
        if self.stride not in (1, 2):
            raise ValueError(
                f"Got stride={self.stride}. The finest scale has the size of the images or half of it: use 1 or 2."
            )
        if self.blocks < 0:
            raise ValueError(f"Got blocks={self.blocks}. It is a number of residual blocks: use 0 or more.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Got dropout={self.dropout}. A probability to drop lies in [0, 1): use 0.1, say.")


class PyramidCell(Cell):
    """z ↦ f(z, x) for states z and injections x of one map (B, Cᵢ, Hᵢ, Wᵢ) per scale.

    fᵢ = N(xᵢ + gᵢ ⊙ Vᵢ ReLU(N(Uᵢ aᵢ + Σⱼ Wᵢⱼ aⱼ))) with a = ReLU(z), 3×3 convolutions U and V, 1×1 convolutions W whose
    maps are averaged or copied to the size of scale i, group norms N and gains g. The last norm takes the state to
    spheres, so that an equilibrium exists whatever the weights are (Brouwer), and the gains start small.

    Args:
        widths: channels of each scale, finest first.
        groups: of the norms.

    """

    def __init__(self, widths: Sequence[int], *, groups: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.expand = nn.ModuleList(conv(width, width, 3) for width in widths)
        self.reduce = nn.ModuleList(conv(width, width, 3) for width in widths)
        self.cross = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if source == target else conv(widths[source], widths[target], 1)
                for source in range(len(widths))
            )
            for target in range(len(widths))
        )
        self.norm_hidden = nn.ModuleList(nn.GroupNorm(groups, width) for width in widths)
        self.norm_out = nn.ModuleList(nn.GroupNorm(groups, width) for width in widths)
        self.gains = nn.ParameterList(nn.Parameter(torch.full((width, 1, 1), _BRANCH_GAIN)) for width in widths)

    def forward(self, z: tuple[Tensor, ...], *x: Tensor) -> tuple[Tensor, ...]:
        """Returns f(z, x)."""
        active = tuple(map(F.relu, z))
        return tuple(self._scale(i, active, x[i]) for i in range(len(self.widths)))

    def _scale(self, i: int, active: tuple[Tensor, ...], x: Tensor) -> Tensor:
        hidden = self.expand[i](active[i])
        cross = self.cross[i]
        assert isinstance(cross, nn.ModuleList)
        for j, a in enumerate(active):
            # The 1x1 convolution runs at the coarser of the two scales, where it is cheaper.
            if j < i:
                hidden = hidden + cross[j](F.avg_pool2d(a, 2 ** (i - j)))
            elif j > i:
                hidden = hidden + F.interpolate(cross[j](a), scale_factor=2 ** (j - i))
        branch = self.reduce[i](F.relu(self.norm_hidden[i](hidden)))
        return self.norm_out[i](x + self.gains[i] * branch)

    def initial_state(self, *x: Tensor) -> tuple[Tensor, ...]:
        """Returns zeros in the dtype of the weights, whatever autocast made of the injection."""
        return tuple(torch.zeros_like(part, dtype=self.gains[0].dtype) for part in x)


class PyramidMDEQ(Multiscale):
    """Stem -> an injection for each scale -> multiscale equilibrium -> head over all scales.

    Args:
        config: its sizes.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibrium is found.
        adjoint: how gradients pass it.

    """

    def __init__(
        self,
        config: PyramidConfig,
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _ANDERSON,
        adjoint: Adjoint = _PHANTOM,
    ) -> None:
        super().__init__(
            config.widths,
            finest=config.stride,
            in_chans=in_chans,
            num_classes=num_classes,
            num_features=config.num_features,
        )
        self.config = config
        self.stem = nn.Sequential(*conv_norm_relu(conv(in_chans, config.stem, 3)))
        strides = [config.stride] + [2] * (len(config.widths) - 1)
        self.inject = nn.ModuleList(
            _feeding_layers(config, before, after, stride=stride)
            for (before, after), stride in zip(pairwise((config.stem, *config.widths)), strides, strict=True)
        )
        self.equilibrium = ImplicitModule(
            PyramidCell(config.widths, groups=config.groups), solver=solver, adjoint=adjoint
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in config.widths)
        self.head = nn.Sequential(*conv_norm_relu(conv(sum(config.widths), config.num_features, 1)))
        self.dropout = nn.Dropout(config.dropout)

    def injection(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) images -> what each scale of the equilibrium is fed with, (B, Cᵢ, Hᵢ, Wᵢ)."""
        x = self.stem(x)
        parts = []
        for inject in self.inject:
            part = inject(x)
            parts.append(part)
            x = F.relu(part)
        return tuple(parts)

    def gather(self, maps: tuple[Tensor, ...]) -> Tensor:
        active = [F.relu(norm(part)) for norm, part in zip(self.norms, maps, strict=True)]
        coarsest = len(active) - 1
        return self.head(torch.cat([F.avg_pool2d(a, 2 ** (coarsest - i)) for i, a in enumerate(active)], dim=1))

    def pool(self, features: Tensor) -> Tensor:
        return self.dropout(super().pool(features))


def _feeding_layers(config: PyramidConfig, before: int, after: int, *, stride: int) -> nn.Sequential:
    """Returns what makes the injection of a scale from that of the scale before, once that has passed ReLU.

    Injections are of either sign without blocks, and not negative behind them.
    """
    pooled = config.pooled and stride > 1
    halving = [conv(before, after, 3), nn.MaxPool2d(stride)] if pooled else [conv(before, after, 3, stride=stride)]
    return nn.Sequential(
        *halving, nn.BatchNorm2d(after), *_residual_blocks(after, config.blocks), nn.Dropout(config.dropout)
    )


def _residual_blocks(width: int, count: int) -> list[nn.Module]:
    if not count:
        return []
    # timm takes half a second to import.
    from timm.models.resnet import BasicBlock

    return [nn.ReLU(inplace=True), *(BasicBlock(width, width) for _ in range(count))]


_TINY = PyramidConfig(widths=(32, 48), stem=32, num_features=208, pooled=True, blocks=1)


@register(task="image-classification", dataset="cifar10", recipe="mdeq-cifar-tiny", paper=PAPER)
def mdeq_cifar_tiny(**runtime: Unpack[Runtime]) -> PyramidMDEQ:
    """A multiscale equilibrium of two scales with residual blocks ahead of it, of less than 170,000 parameters."""
    return PyramidMDEQ(_TINY, **runtime)


@register(task="image-classification", dataset="cifar10", recipe="mdeq-cifar-tiny-noaug", paper=PAPER)
def mdeq_cifar_tiny_noaug(**runtime: Unpack[Runtime]) -> PyramidMDEQ:
    """The network of mdeq-cifar-tiny with dropout, trained on the images as they are."""
    return PyramidMDEQ(replace(_TINY, dropout=0.1), **runtime)


@register(task="image-classification", dataset="cifar10", recipe="mdeq-cifar-deep-tiny", paper=PAPER)
def mdeq_cifar_deep_tiny(**runtime: Unpack[Runtime]) -> PyramidMDEQ:
    """A multiscale equilibrium of three scales with residual blocks ahead of it, of less than 4 million parameters."""
    config = PyramidConfig(widths=(64, 128, 256), stem=64, num_features=256, pooled=True, blocks=1)
    return PyramidMDEQ(config, **runtime)


@register(task="image-classification", dataset="cifar10", recipe="mdeq-cifar", paper=PAPER)
def mdeq_cifar(**runtime: Unpack[Runtime]) -> PyramidMDEQ:
    """A multiscale equilibrium of three scales with residual blocks ahead of it, of less than 10 million parameters."""
    config = PyramidConfig(widths=(128, 256, 352), stem=64, num_features=512, pooled=True, blocks=1)
    return PyramidMDEQ(config, **runtime)
