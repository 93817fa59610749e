"""Positive concave deep equilibrium models (Gabor, Piotrowski & Cavalcante 2024, arXiv 2402.04029).

f(z) = σ(W z + p) with W ≥ 0, z ≥ 0 and σ concave, increasing and bounded. Such a map has exactly one fixed point, and
plain iteration reaches it at a geometric rate from every nonnegative start.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.models.certified import Certificate, Certified
from deqzoo.models.classifier import check_size
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.models.maps import maps_along
from deqzoo.models.paper import Paper
from deqzoo.models.pcdeq_parts import PositiveConcaveCell, iteration_bounds, positive_injection
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import ImplicitModule
from deqzoo.solvers import FixedPointSolver, Picard

PAPER = Paper(
    key="gabor2024positive",
    title="Positive Concave Deep Equilibrium Models",
    authors="Gabor, Mateusz and Piotrowski, Tomasz and Cavalcante, Renato L. G.",
    venue="International Conference on Machine Learning",
    year=2024,
    arxiv="2402.04029",
)

# Convergence is certain, so that a slow start is no reason to give up.
_PICARD = Picard(rtol=1e-4, max_steps=200, patience=200)


class _Stage(nn.Module):
    """entry -> BatchNorm -> positive injection -> equilibrium -> (max pooling) -> BatchNorm (-> plus what came in)."""

    def __init__(
        self,
        entry: nn.Linear | nn.Conv2d,
        width: int,
        *,
        activation: str,
        skip: bool,
        solver: FixedPointSolver,
        adjoint: Adjoint,
    ) -> None:
        super().__init__()
        dense = isinstance(entry, nn.Linear)
        norm = nn.BatchNorm1d if dense else nn.BatchNorm2d
        self.entry = entry
        self.norm_in = norm(width)
        self.equilibrium = ImplicitModule(
            PositiveConcaveCell(width, activation=activation, dense=dense), solver=solver, adjoint=adjoint
        )
        self.pool = nn.Identity() if dense else nn.MaxPool2d(3, stride=1, padding=1)
        self.norm_out = norm(width)
        self.activation, self.skip = activation, skip

    def injection(self, x: Tensor) -> Tensor:
        """Returns p, of the shape of the equilibrium."""
        return positive_injection(self.norm_in(self.entry(x)), self.activation)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm_out(self.pool(self.equilibrium(self.injection(x))))
        return x + out if self.skip else out


class PcDEQ(Certified):
    """pcDEQ equilibria in sequence, each fed by a convolution (or, first and only, a matrix) with BatchNorm.

    Two parts are not of the paper, and change nothing of what is proved of the equilibria: a stem, and sums. An
    equilibrium whose convolution keeps width and size of the maps before it is added to these, as in residual networks.

    Args:
        widths: channels of each equilibrium.
        image_size: height and width of its images in pixels. With `dense` or `pool_size` it takes no others.
        strides: of the convolutions that feed the equilibria: 1 keeps the size of the maps, 2 halves it. By default the
            first keeps it, and each further one halves it.
        stem: channels of a convolution with BatchNorm and ReLU before all that; None for none.
        dense: one equilibrium of vectors instead of maps.
        padding: of the convolutions between equilibria; 0 loses a border, as the original does.
        pool_size: side of the squares that are averaged for the head; by default the whole map.
        activation: σ; see `PositiveConcaveCell`.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibria are found.
        adjoint: how gradients pass them.

    """

    layers: ClassVar[dict[str, str]] = {"stem": r"^stem", "stages": r"^stages\.(\d+)"}
    per_image = True

    def __init__(
        self,
        widths: Sequence[int],
        *,
        image_size: int,
        strides: Sequence[int] | None = None,
        stem: int | None = None,
        dense: bool = False,
        padding: int = 1,
        pool_size: int | None = None,
        activation: str = "relu6",
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _PICARD,
        adjoint: Adjoint = Implicit(solver=_PICARD),
    ) -> None:
        strides = (1, *(2 for _ in widths[1:])) if strides is None else tuple(strides)
        if dense and (len(widths) != 1 or strides != (1,) or stem is not None):
            raise ValueError(
                f"A dense PcDEQ has one equilibrium and no convolutions, got widths={tuple(widths)}, "
                f"strides={strides}, stem={stem}. Give one width alone."
            )
        if len(strides) != len(widths) or min(*strides, *widths, 1 if stem is None else stem) < 1:
            raise ValueError(
                f"PcDEQ got widths={tuple(widths)}, strides={strides} and stem={stem}. Give one stride for each "
                "equilibrium, and numbers of 1 and more."
            )
        paddings = [1, *(padding for _ in widths[1:])]
        side = image_size
        for stride, pad in zip(strides, paddings, strict=True):
            side = (side + 2 * pad - 3) // stride + 1
        cells = 1 if dense or pool_size is None else (side // pool_size) ** 2
        if side < 1 or cells < 1:
            raise ValueError(
                f"PcDEQ got image_size={image_size} and pool_size={pool_size} for strides={strides}: the last maps are "
                f"{side}x{side}, and nothing is left for the head. Take larger images, smaller strides or squares."
            )
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=widths[-1] * cells)
        self.widths, self.strides = tuple(widths), strides
        self.image_size, self.pool_size, self.dense = image_size, pool_size, dense
        self.fixed_input_size = dense or pool_size is not None
        self.stem = nn.Identity()
        if stem is not None:
            self.stem = nn.Sequential(*conv_norm_relu(conv(in_chans, stem, 3)))
        before = (in_chans if stem is None else stem, *widths[:-1])
        entries: list[nn.Linear | nn.Conv2d]
        if dense:
            entries = [nn.Linear(in_chans * image_size**2, widths[0])]
        else:
            shapes = zip(before, widths, strides, paddings, strict=True)
            entries = [nn.Conv2d(a, b, 3, stride=stride, padding=pad) for a, b, stride, pad in shapes]
        skips = [
            a == b and stride == pad == 1 and (place > 0 or stem is not None)  # never of the images themselves
            for place, (a, b, stride, pad) in enumerate(zip(before, widths, strides, paddings, strict=True))
        ]
        self.stages = nn.Sequential(
            *(
                _Stage(entry, width, activation=activation, skip=skip, solver=solver, adjoint=adjoint)
                for entry, width, skip in zip(entries, widths, skips, strict=True)
            )
        )

    @property
    def guarantee(self) -> str:
        return (
            "Its equilibria exist, are unique, and are reached by plain iteration from zero, whatever the weights and "
            "the image: after k iterations every component is within cᵏ of its limit, relatively."
        )

    def _proved(self, x: Tensor, rtol: float) -> Certificate:
        x = self._prepared(x)
        bounds, least = [], math.inf
        for stage in self.stages:
            assert isinstance(stage, _Stage)
            cell = stage.equilibrium.cell
            assert isinstance(cell, PositiveConcaveCell)
            bounds.append(iteration_bounds(cell, stage.injection(x), rtol))
            weight = cell.linear.weight
            assert isinstance(weight, Tensor)
            least = min(least, float(weight.min()))
            if stage is not self.stages[-1]:
                x = stage(x)
        rate, steps = (torch.stack(parts, dim=1) for parts in zip(*bounds, strict=True))
        return Certificate(
            rate=rate, max_steps=steps, rtol=rtol, unique=least >= 0, at_least={"smallest entry of all W": least}
        )

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        if self.dense:
            return []
        reductions = accumulate(self.strides, mul)
        return [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{place}"}
            for place, (width, reduction) in enumerate(zip(self.widths, reductions, strict=True))
        ]

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return maps_along(self.stages, self._prepared(x))

    def pool(self, features: Tensor) -> Tensor:
        if self.dense:
            return features
        if self.pool_size is None:
            return super().pool(features)
        return F.avg_pool2d(features, self.pool_size).flatten(1)

    def _prepared(self, x: Tensor) -> Tensor:
        """Images -> what feeds the first equilibrium."""
        if self.fixed_input_size:
            check_size(x, self.image_size)
        return x.flatten(1) if self.dense else self.stem(x)


@register(task="image-classification", dataset="mnist", recipe="pcdeq-mnist", paper=PAPER)
def pcdeq_mnist(**runtime: Unpack[Runtime]) -> PcDEQ:
    """Three pcDEQ-1 equilibria of growing width, halving the image between them."""
    return PcDEQ((16, 28, 64), image_size=28, pool_size=3, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", recipe="pcdeq-mnist-linear", paper=PAPER)
def pcdeq_mnist_linear(**runtime: Unpack[Runtime]) -> PcDEQ:
    """One dense pcDEQ-1 equilibrium of 80 components, as published."""
    return PcDEQ((80,), image_size=28, dense=True, activation="tanh", **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", paper=PAPER)
def pcdeq_mnist_single(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published single-convolution pcDEQ-1 of 82 channels."""
    return PcDEQ((82,), image_size=28, pool_size=8, activation="tanh", **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", paper=PAPER)
def pcdeq_mnist_multi(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published multi-convolution pcDEQ-1 of 12, 24 and 48 channels, with unpadded halving."""
    return PcDEQ(
        (12, 24, 48), image_size=28, padding=0, pool_size=4, activation="softsign", **{"in_chans": 1, **runtime}
    )


@register(task="image-classification", dataset="cifar10", recipe="pcdeq-cifar", paper=PAPER)
def pcdeq_cifar(**runtime: Unpack[Runtime]) -> PcDEQ:
    """Six pcDEQ-1 equilibria behind a stem, in pairs whose second is added to its first."""
    return PcDEQ((40, 40, 72, 72, 112, 112), image_size=32, stem=40, strides=(1, 1, 2, 1, 2, 1), **runtime)


@register(task="image-classification", dataset="cifar10", recipe="pcdeq-cifar-tiny", paper=PAPER)
def pcdeq_cifar_tiny(**runtime: Unpack[Runtime]) -> PcDEQ:
    """Six narrow pcDEQ-1 equilibria behind a stem, in pairs whose second is added to its first."""
    return PcDEQ((32, 32, 64, 64, 112, 112), image_size=32, stem=32, strides=(2, 1, 2, 1, 2, 1), **runtime)


@register(task="image-classification", dataset="cifar10", paper=PAPER)
def pcdeq_cifar_single(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published single-convolution pcDEQ-2 of 125 channels, for CIFAR-10 without augmentation and SVHN."""
    return PcDEQ((125,), image_size=32, pool_size=8, activation="sigmoid", **runtime)


@register(task="image-classification", dataset="cifar10", paper=PAPER)
def pcdeq_cifar_multi(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published multi-convolution pcDEQ-1 of 100, 120 and 140 channels, for CIFAR-10 with augmentation."""
    return PcDEQ((100, 120, 140), image_size=32, padding=0, pool_size=4, activation="relu6", **runtime)
