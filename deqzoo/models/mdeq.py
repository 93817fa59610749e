"""Multiscale deep equilibrium models (Bai, Koltun & Kolter 2020, arXiv 2006.08656).

One equilibrium of several resolutions at once. Its map passes each resolution through a residual block, then lets
every resolution see every other. The sizes are those of the code that the authors published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.models.mdeq_parts import (
    MultiscaleHead,
    ResidualBlock,
    fusion_path,
    normed_conv,
    pixelwise,
    stem,
)
from deqzoo.models.multiscale import Multiscale
from deqzoo.models.paper import Paper
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import Cell, ImplicitModule, VariationalDropout
from deqzoo.solvers import Broyden, FixedPointSolver

PAPER = Paper(
    key="bai2020multiscale",
    title="Multiscale Deep Equilibrium Models",
    authors="Bai, Shaojie and Koltun, Vladlen and Kolter, J. Zico",
    venue="Advances in Neural Information Processing Systems",
    year=2020,
    arxiv="2006.08656",
)

# The published budgets; the memory holds all of their steps.
_BROYDEN = Broyden(rtol=1e-3, max_steps=18, memory=18)
_IMPLICIT = Implicit(solver=Broyden(rtol=1e-3, max_steps=20, memory=20))
_IMAGENET = Runtime(
    solver=Broyden(rtol=1e-3, max_steps=26, memory=26),
    adjoint=Implicit(solver=Broyden(rtol=1e-3, max_steps=27, memory=27)),
    num_classes=1000,
)


@dataclass(frozen=True, kw_only=True)
class MDEQConfig:
    """The sizes of a multiscale equilibrium model.

    Attributes:
        channels: of each scale, finest first; each scale has half the height and width of the one before.
        head_channels: inside the head's bottleneck of each scale.
        num_features: channels that the head gives to the classifier.
        expansion: hidden channels of the residual blocks per channel of theirs.
        groups: of the norms in the cell; half as many after fusion.
        halvings: how often the stem halves the images, 0 to 2.
        dropout: probability to drop a channel of a block's branch, for a whole solve.

    """

    channels: tuple[int, ...]
    head_channels: tuple[int, ...]
    num_features: int
    expansion: int = 5
    groups: int = 8
    halvings: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.head_channels):
            raise ValueError(
                f"Got channels={self.channels} and head_channels={self.head_channels}. Both have one number per "
                "scale: give as many of the one as of the other."
            )
        if self.groups < 2 or self.groups % 2 or any(width % self.groups for width in self.channels):
            raise ValueError(
                f"Got groups={self.groups} for channels={self.channels}. Norms divide the channels into an even number "
                "of groups of equal size: choose channels that are multiples of it."
            )
        if not 0 <= self.halvings <= 2:
            raise ValueError(
                f"Got halvings={self.halvings}. The stem has two convolutions to halve images with: use 0 to 2."
            )


class MultiscaleCell(Cell):
    """z ↦ f(z, u) for states z of one map (B, Cᵢ, H / 2ⁱ, W / 2ⁱ) per scale.

    Residual blocks for each scale, of which the finest sees the injection u; then each scale gets the sum of what all
    scales have for it, passed through ReLU, a 1x1 convolution and a norm. A single scale is left as its block gives it.

    Args:
        channels: of each scale, finest first.
        expansion: hidden channels of the blocks per channel of theirs.
        groups: of the norms.

    """

    def __init__(self, channels: Sequence[int], *, expansion: int, groups: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        scales = range(len(channels)) if len(channels) > 1 else ()
        self.blocks = nn.ModuleList(ResidualBlock(c, expansion=expansion, groups=groups) for c in channels)
        self.fuse = nn.ModuleList(
            nn.ModuleList(fusion_path(channels, source, target, groups=groups) for source in scales)
            for target in scales
        )
        self.post = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(inplace=True),
                normed_conv(channels[scale], channels[scale], 1),
                nn.GroupNorm(groups // 2, channels[scale]),
            )
            for scale in scales
        )

    def forward(self, z: tuple[Tensor, ...], injection: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        """Returns f(z).

        Args:
            z: the state.
            injection: (B, C₀, H, W) u.
            *masks: (B, Cᵢ, 1, 1) of dropout for each scale, or none at all.

        """
        blocks = tuple(
            block(part, None if scale else injection, masks[scale] if masks else None)
            for scale, (block, part) in enumerate(zip(self.blocks, z, strict=True))
        )
        if len(blocks) == 1:
            return blocks
        return tuple(post(self._fused(paths, blocks)) for paths, post in zip(self.fuse, self.post, strict=True))

    @staticmethod
    def _fused(paths: nn.Module, blocks: tuple[Tensor, ...]) -> Tensor:
        assert isinstance(paths, nn.ModuleList)
        return reduce(torch.add, (path(block) for path, block in zip(paths, blocks, strict=True)))

    def initial_state(self, injection: Tensor, *masks: Tensor) -> tuple[Tensor, ...]:
        """Returns zeros in the dtype of the weights, whatever autocast made of the injection."""
        batch, _, height, width = injection.shape
        dense = injection.is_contiguous()
        return tuple(
            torch.zeros(
                (batch, channels, height >> scale, width >> scale),
                dtype=next(self.parameters()).dtype,
                device=injection.device,
            ).contiguous(memory_format=torch.contiguous_format if dense else torch.channels_last)
            for scale, channels in enumerate(self.channels)
        )


class MDEQ(Multiscale):
    """Stem -> injection -> multiscale equilibrium -> head over all scales.

    Args:
        config: its sizes.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibrium is found.
        adjoint: how gradients pass it.

    """

    def __init__(
        self,
        config: MDEQConfig,
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _BROYDEN,
        adjoint: Adjoint = _IMPLICIT,
    ) -> None:
        super().__init__(
            config.channels,
            finest=2**config.halvings,
            in_chans=in_chans,
            num_classes=num_classes,
            num_features=config.num_features,
        )
        self.config = config
        finest = config.channels[0]
        self.stem = stem(in_chans, finest, halvings=config.halvings)
        # Small networks do without: the stem is all there is between image and equilibrium.
        direct = config.halvings == 0 and len(config.channels) <= 2
        self.inject = nn.Identity() if direct else pixelwise(finest)
        self.dropout = VariationalDropout(config.dropout, shared=(2, 3))
        self.equilibrium = ImplicitModule(
            MultiscaleCell(config.channels, expansion=config.expansion, groups=config.groups),
            solver=solver,
            adjoint=adjoint,
        )
        self.head = MultiscaleHead(config.channels, config.head_channels, config.num_features)
        for module in self.modules():
            # Weight-normed convolutions keep torch's start, as they do in effect in the published code.
            if isinstance(module, nn.Conv2d) and not parametrize.is_parametrized(module):
                for parameter in module.parameters():
                    nn.init.normal_(parameter, std=0.01)

    def injection(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) images -> (B, C₀, H₀, W₀) for the finest scale, and the masks of dropout, if there are any."""
        injection = self.inject(self.stem(x))
        return injection, *self._masks(injection)

    def _masks(self, injection: Tensor) -> tuple[Tensor, ...]:
        if not self.dropout.training or self.dropout.p == 0:
            return ()
        batch = len(injection)
        return tuple(self.dropout.draw(injection.new_empty(batch, c, 1, 1)) for c in self.config.channels)

    def gather(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.head(maps)


@register(task="image-classification", dataset="cifar10", paper=PAPER)
def mdeq_cifar_tiny_original(**runtime: Unpack[Runtime]) -> MDEQ:
    """The published small MDEQ of two scales, for CIFAR-10 without augmentation."""
    return MDEQ(MDEQConfig(channels=(24, 24), head_channels=(8, 16), num_features=200, dropout=0.25), **runtime)


@register(task="image-classification", dataset="cifar10", paper=PAPER)
def mdeq_cifar_original(**runtime: Unpack[Runtime]) -> MDEQ:
    """The published large MDEQ of four scales, for CIFAR-10."""
    config = MDEQConfig(channels=(32, 64, 128, 256), head_channels=(14, 28, 56, 112), num_features=1680, dropout=0.3)
    return MDEQ(config, **runtime)


@register(task="image-classification", dataset="imagenet-1k", recipe="mdeq-imagenet-small", paper=PAPER)
def mdeq_imagenet_small(**runtime: Unpack[Runtime]) -> MDEQ:
    """The published small MDEQ for ImageNet."""
    config = MDEQConfig(channels=(32, 64, 128, 256), head_channels=(24, 48, 96, 192), num_features=2048, halvings=2)
    return MDEQ(config, **(_IMAGENET | runtime))


@register(task="image-classification", dataset="imagenet-1k", recipe="mdeq-imagenet-large", paper=PAPER)
def mdeq_imagenet_large(**runtime: Unpack[Runtime]) -> MDEQ:
    """The published large MDEQ for ImageNet."""
    config = MDEQConfig(channels=(80, 160, 320, 640), head_channels=(32, 64, 128, 256), num_features=2048, halvings=2)
    return MDEQ(config, **(_IMAGENET | runtime))


@register(task="image-classification", dataset="imagenet-1k", recipe="mdeq-imagenet-xl", paper=PAPER)
def mdeq_imagenet_xl(**runtime: Unpack[Runtime]) -> MDEQ:
    """The published extra-large MDEQ for ImageNet."""
    config = MDEQConfig(
        channels=(88, 176, 352, 704), head_channels=(32, 64, 128, 256), num_features=2048, expansion=6, halvings=2
    )
    return MDEQ(config, **(_IMAGENET | runtime))
