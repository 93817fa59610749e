"""Monotone operator equilibrium networks (Winston & Kolter 2020, arXiv 2006.08591).

z = ReLU(W z + x) with W = (1 − m) I − AᵀA + B − Bᵀ. As I − W ⪰ m I for some m > 0, there is exactly one such z, and
operator splittings reach it from everywhere.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.models.certified import Certificate, Certified, for_all_images
from deqzoo.models.classifier import check_size
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.models.maps import halved_maps
from deqzoo.models.mondeq_cell import MonotoneCell
from deqzoo.models.mondeq_parts import MonotoneConv, MonotoneMatrix
from deqzoo.models.mondeq_tiers import MonotoneTiers
from deqzoo.models.paper import Paper
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import ForwardBackward, ImplicitModule, MonotoneOperator, PeacemanRachford, Splitting
from deqzoo.solvers import Anderson, FixedPointSolver

PAPER = Paper(
    key="winston2020monotone",
    title="Monotone Operator Equilibrium Networks",
    authors="Winston, Ezra and Kolter, J. Zico",
    venue="Advances in Neural Information Processing Systems",
    year=2020,
    arxiv="2006.08591",
)

_ANDERSON = Anderson(rtol=1e-4, max_steps=200, patience=100)


@dataclass(frozen=True, kw_only=True)
class MonDEQConfig:
    """The sizes of a monotone operator network.

    Attributes:
        widths: channels of the equilibrium, one number per tier; each has half the height and width of the one before.
        image_size: height and width of its images in pixels.
        stem: channels of each convolution between the images and the injection; none for an injection that sees the
            images themselves.
        stride: pixels of the image per pixel of the finest tier, along each side: 1, 2 or, with a stem, 4.
        cells: squares, along each side, that every tier is averaged over for the head.
        dense: an equilibrium of vectors, fed by all pixels, instead of maps.
        norms: whether there are norms before and after the equilibrium; the published networks have none.
        margin: m.

    """

    widths: tuple[int, ...]
    image_size: int
    stem: tuple[int, ...] = ()
    stride: int = 1
    cells: int = 1
    dense: bool = False
    norms: bool = True
    margin: float = 1.0

    def __post_init__(self) -> None:
        if not self.widths or (self.dense and len(self.widths) > 1):
            raise ValueError(
                f"Got widths={self.widths} with dense={self.dense}. There is one number per tier, and vectors have one "
                "tier: give at least one width, and just one for dense=True."
            )
        if not self.margin > 0:
            raise ValueError(
                f"Got margin={self.margin}. Equilibria are unique for positive margins alone: 1.0 is the published one."
            )


class MonDEQ(Certified):
    """(Stem ->) injection -> monotone equilibrium -> BatchNorm and average pooling of each tier -> linear.

    Args:
        config: its sizes.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibrium is found.
        adjoint: how gradients pass it.
        splitting: what they iterate; by default Peaceman–Rachford for one tier, forward–backward for several.

    """

    layers: ClassVar[dict[str, str]] = {
        "stem": r"^(?:stem|entries|norms_in)",
        "equilibrium": r"^(?:equilibrium|norms_out)",
    }

    def __init__(
        self,
        config: MonDEQConfig,
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _ANDERSON,
        adjoint: Adjoint = Implicit(solver=_ANDERSON),
        splitting: Splitting | None = None,
    ) -> None:
        widths = config.widths
        features = widths[0] if config.dense else sum(widths) * config.cells**2
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=features)
        self.config = config
        norm = (nn.BatchNorm1d if config.dense else nn.BatchNorm2d) if config.norms else nn.Identity
        bias = not config.norms
        # Where there is a stem its first convolution halves the images, and the injection does what is left.
        reduction = min(config.stride, 2) if config.stem else 1
        stem: list[nn.Module] = []
        for before, after in pairwise((in_chans, *config.stem)):
            stem += conv_norm_relu(conv(before, after, 3, stride=1 if stem else reduction))
        self.stem = nn.Sequential(*stem)
        if config.dense:
            entries: list[nn.Module] = [nn.Linear(in_chans * config.image_size**2, widths[0], bias=bias)]
        else:
            source, stride = (in_chans, *config.stem)[-1], config.stride // reduction
            entries = [conv(source, width, 3, stride=stride, bias=bias) for width in widths]
        self.entries = nn.ModuleList(entries)
        self.norms_in = nn.ModuleList(norm(width) for width in widths)
        if config.dense:
            operator: MonotoneOperator = MonotoneMatrix(widths[0], margin=config.margin)
        elif len(widths) == 1:
            operator = MonotoneConv(widths[0], margin=config.margin)
        else:
            operator = MonotoneTiers(widths, margin=config.margin)
        default = PeacemanRachford() if len(widths) == 1 else ForwardBackward(alpha=0.25)
        self.equilibrium = ImplicitModule(
            MonotoneCell(operator, splitting=splitting or default), solver=solver, adjoint=adjoint
        )
        self.norms_out = nn.ModuleList(norm(width) for width in widths)

    def injection(self, x: Tensor) -> Any:
        """(B, C, H, W) images -> what the equilibrium is fed with: a tensor of its shape, or a tuple of such."""
        x = x.flatten(1) if self.config.dense else self.stem(x)
        parts = []
        for tier, (entry, norm) in enumerate(zip(self.entries, self.norms_in, strict=True)):
            parts.append(norm(entry(F.avg_pool2d(x, 2**tier) if tier else x)))
        return parts[0] if len(parts) == 1 else tuple(parts)

    @property
    def guarantee(self) -> str:
        told = (
            "Its equilibrium exists and is unique, whatever the weights and the image, as W is made such that I − W "
            "has a positive margin. The rate c is that of plain iteration of the operator splitting: each step leaves "
            "at most c times the distance to its limit. Solvers that accelerate it, as Anderson does, have no such "
            "bound."
        )
        if len(self.config.widths) > 1:
            told += (
                " Across several resolutions the figures are estimates, of Lanczos' method and of a power iteration; "
                "the margin by construction is no estimate."
            )
        return told

    def _proved(self, x: Tensor, rtol: float) -> Certificate:
        check_size(x, self.config.image_size)
        cell, like = self.equilibrium.cell, self.injection(x[:1])
        assert isinstance(cell, MonotoneCell)
        margin, lipschitz = cell.operator.least_eigenvalue(like), cell.operator.lipschitz(like)
        splitting = cell.splitting
        return for_all_images(
            splitting.rate(cell.operator, margin, lipschitz) if splitting and margin > 0 else 1.0,
            rtol,
            unique=margin > 0,
            estimated=len(self.config.widths) > 1,
            at_least={"margin, the least eigenvalue of I − (W + Wᵀ) / 2": margin},
            at_most={"‖I − W‖₂": lipschitz},
        )

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        if self.config.dense:
            return []
        return halved_maps(self.config.widths, "norms_out.{}", finest=self.config.stride)

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        check_size(x, self.config.image_size)
        z = self.equilibrium(self.injection(x))
        tiers = (z,) if isinstance(z, Tensor) else z
        return tuple(norm(tier) for norm, tier in zip(self.norms_out, tiers, strict=True))

    def gather(self, maps: tuple[Tensor, ...]) -> Tensor:
        if self.config.dense:
            return maps[0]
        return torch.cat([F.adaptive_avg_pool2d(tier, self.config.cells) for tier in maps], dim=1)

    def pool(self, features: Tensor) -> Tensor:
        return features.flatten(1)


@register(task="image-classification", dataset="mnist", recipe="mondeq-mnist", paper=PAPER)
def mondeq_mnist(**runtime: Unpack[Runtime]) -> MonDEQ:
    """One convolutional monotone equilibrium of 48 channels, at a quarter of the image's sides."""
    config = MonDEQConfig(widths=(48,), image_size=28, stem=(32, 32), stride=4, cells=3)
    # A small step, for the large ‖I − W‖ that training leads to.
    return MonDEQ(config, splitting=PeacemanRachford(alpha=0.15), **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", paper=PAPER)
def mondeq_mnist_dense(**runtime: Unpack[Runtime]) -> MonDEQ:
    """The published dense monotone equilibrium of 87 components."""
    config = MonDEQConfig(widths=(87,), image_size=28, dense=True, norms=False)
    return MonDEQ(config, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="cifar10", recipe="mondeq-cifar", paper=PAPER)
def mondeq_cifar(**runtime: Unpack[Runtime]) -> MonDEQ:
    """A monotone equilibrium of three tiers, of 64, 112 and 128 channels."""
    return MonDEQ(MonDEQConfig(widths=(64, 112, 128), image_size=32, stem=(64,)), **runtime)
