"""Positive concave deep equilibrium models (Gabor, Piotrowski & Cavalcante 2024, arXiv 2402.04029).

f(z) = σ(W z + p) with W ≥ 0, z ≥ 0 and σ concave, increasing and bounded. Such a map has exactly one fixed point, and
plain iteration reaches it at a geometric rate from every nonnegative start.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.errors import StructureError
from deqzoo.models.classifier import Classifier
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import Cell, ImplicitModule, nonnegative
from deqzoo.solvers import FixedPointSolver, Picard

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
}
"""Concave on z ≥ 0, increasing, bounded."""


# Convergence is certain, so that a slow start is no reason to give up.
_PICARD = Picard(rtol=1e-4, max_steps=200, patience=200)

_REFINEMENTS = 200
"""Iterations from above and from below that a certificate compares."""


def positive_injection(x: Tensor, activation: str) -> Tensor:
    """Returns p (B, ...) with σ(p) > 0: softplus₅(x) where σ(0) = 0 (pcDEQ-1), ReLU(x) where σ(0) > 0 (pcDEQ-2)."""
    return F.relu(x) if activation == "sigmoid" else F.softplus(x, beta=5)


class PositiveConcaveCell(Cell):
    """z ↦ σ(W z + p), with W ≥ 0 by parametrisation: a matrix, or a 3×3 convolution that keeps the size.

    Args:
        width: length of z, or its channels.
        activation: "tanh", "softsign", "relu6" (pcDEQ-1) or "sigmoid" (pcDEQ-2).
        dense: whether W is a matrix.

    """

    def __init__(self, width: int, *, activation: str, dense: bool = False) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"activation={activation!r} is not known to be concave, increasing and bounded, as a unique "
                f"equilibrium needs it to be. Choose one of {', '.join(_ACTIVATIONS)}."
            )
        self.activation = activation
        linear = nn.Linear(width, width, bias=False) if dense else nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.uniform_(linear.weight, 0, 1e-2 / (2 * width) ** 0.5)
        self.linear = nonnegative(linear)

    def forward(self, z: Tensor, p: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](self.linear(z) + p)

    def initial_state(self, p: Tensor) -> Tensor:
        return torch.zeros_like(p)


class _Stage(nn.Module):
    """entry -> BatchNorm -> positive injection -> equilibrium -> (max pooling) -> BatchNorm."""

    def __init__(
        self, entry: nn.Module, width: int, *, activation: str, solver: FixedPointSolver, adjoint: Adjoint
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
        self.activation = activation

    def injection(self, x: Tensor) -> Tensor:
        """Returns p, of the shape of the equilibrium."""
        return positive_injection(self.norm_in(self.entry(x)), self.activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_out(self.pool(self.equilibrium(self.injection(x))))


class PcDEQ(Classifier):
    """pcDEQ equilibria in sequence, each fed by a convolution (or, first and only, a matrix) with BatchNorm.

    Args:
        widths: channels of each equilibrium. The first keeps the image size, each further one halves it.
        image_size: height and width of its images in pixels.
        dense: one equilibrium of vectors instead of maps.
        padding: of the halving convolutions; 0 loses a border, as the original does.
        pool_size: side of the squares that are averaged for the head; by default the whole map.
        activation: σ; see `PositiveConcaveCell`.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibria are found.
        adjoint: how gradients pass them.

    """

    layers: ClassVar[dict[str, str]] = {"stages": r"^stages\.(\d+)"}

    def __init__(
        self,
        widths: Sequence[int],
        *,
        image_size: int,
        dense: bool = False,
        padding: int = 1,
        pool_size: int | None = None,
        activation: str = "relu6",
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _PICARD,
        adjoint: Adjoint = Implicit(solver=_PICARD),
    ) -> None:
        if dense and len(widths) != 1:
            raise ValueError(f"A dense PcDEQ has one equilibrium, got widths={tuple(widths)}. Give one width.")
        side = image_size
        for _ in widths[1:]:
            side = (side + 2 * padding - 3) // 2 + 1
        pool_size = pool_size or side
        cells = 1 if dense else (side // pool_size) ** 2
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=widths[-1] * cells)
        self.image_size, self.pool_size, self.dense = image_size, pool_size, dense
        entries: list[nn.Module] = [
            nn.Linear(in_chans * image_size**2, widths[0]) if dense else nn.Conv2d(in_chans, widths[0], 3, padding=1)
        ]
        entries += [nn.Conv2d(a, b, 3, stride=2, padding=padding) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(
            *(
                _Stage(entry, width, activation=activation, solver=solver, adjoint=adjoint)
                for entry, width in zip(entries, widths, strict=True)
            )
        )

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        if self.dense:
            return []
        return [
            {"num_chs": stage.norm_out.num_features, "reduction": 2**i, "module": f"stages.{i}"}
            for i, stage in enumerate(self.stages)
            if isinstance(stage, _Stage)
        ]

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise StructureError(
                f"Found images of {x.shape[2]}x{x.shape[3]} pixels. This network takes "
                f"{self.image_size}x{self.image_size}: resize them, as the model's `.transform` does."
            )
        x = x.flatten(1) if self.dense else x
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def pool(self, features: Tensor) -> Tensor:
        return features if self.dense else F.avg_pool2d(features, self.pool_size).flatten(1)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A proof, for given weights and inputs, that each equilibrium exists, is unique and is reached at a known rate.

    With μ = minᵢ g(0)ᵢ / z*ᵢ, plain iteration from zero obeys 0 ≤ z* − z_k ≤ (1 − μ)ᵏ z*; the Jacobian at z* has the
    weighted norm of at most 1 − μ, so that the backward iteration converges at the same rate. The same holds of m
    iterations taken as one, gᵐ with μₘ = minᵢ gᵐ(0)ᵢ / z*ᵢ, which is much sharper once all components have been fed.

    Attributes:
        rate: (B, L) c = 1 − μ of each sample and equilibrium.
        max_steps: (B, L) a number of iterations from zero after which every component is within `rtol` of z*: the
            least m ⌈log rtol / log(1 − μₘ)⌉ that was found.
        rtol: the relative accuracy that `max_steps` is for.
        min_weight: the smallest entry of all W: nonnegative.

    """

    rate: Tensor
    max_steps: Tensor
    rtol: float
    min_weight: float


@torch.no_grad()
def certificate(model: nn.Module, x: Tensor, *, rtol: float = 1e-4) -> Certificate:
    """Returns the certificate of `model`, a `PcDEQ`, for images (B, C, H, W).

    It is computed anew, in float64, from the weights that are loaded. z* need not be known: iterates u that start
    above all components of z* stay above it, and μₘ ≥ minᵢ gᵐ(0)ᵢ / uᵢ.

    Raises:
        ValueError: if `model` is no `PcDEQ`, or rtol not in (0, 1).

    """
    if not isinstance(model, PcDEQ):
        raise ValueError(f"{type(model).__name__} is no PcDEQ: only those come with this certificate.")
    if not 0 < rtol < 1:
        raise ValueError(f"Got rtol={rtol}. A relative accuracy lies in (0, 1), such as 1e-4.")
    model = copy.deepcopy(model).double().eval()
    x = x.double()
    if model.dense:
        x = x.flatten(1)
    rates, steps, min_weight = [], [], math.inf
    for stage in model.stages:
        assert isinstance(stage, _Stage)
        cell, p = stage.equilibrium.cell, stage.injection(x)
        assert isinstance(cell, PositiveConcaveCell)
        above = torch.full_like(p, 6.0 if stage.activation == "relu6" else 1.0)
        for _ in range(_REFINEMENTS):
            above = cell(above, p)
        below = torch.zeros_like(p)
        bounds = []
        for m in range(1, _REFINEMENTS + 1):
            below = cell(below, p)
            mu = (below / above).flatten(1).amin(1).clamp_max(1)
            if m == 1:
                rates.append(1 - mu)
            # (1 − μₘ)ᵏ ≤ rtol; log1p, as 1 − μ may round to one.
            bounds.append(m * (math.log(rtol) / torch.log1p(-mu)).ceil().clamp_min(1))
        steps.append(torch.stack(bounds).amin(0))
        weight = cell.linear.weight
        assert isinstance(weight, Tensor)
        min_weight = min(min_weight, float(weight.min()))
        if stage is not model.stages[-1]:
            x = stage(x)
    return Certificate(
        rate=torch.stack(rates, dim=1), max_steps=torch.stack(steps, dim=1), rtol=rtol, min_weight=min_weight
    )


@register(task="image-classification", dataset="mnist", recipe="pcdeq-mnist")
def pcdeq_mnist(**runtime: Unpack[Runtime]) -> PcDEQ:
    """Three pcDEQ-1 equilibria of growing width, halving the image between them."""
    return PcDEQ((16, 28, 64), image_size=28, pool_size=3, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist", recipe="pcdeq-mnist-linear")
def pcdeq_mnist_linear(**runtime: Unpack[Runtime]) -> PcDEQ:
    """One dense pcDEQ-1 equilibrium of 80 components, as published."""
    return PcDEQ((80,), image_size=28, dense=True, activation="tanh", **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist")
def pcdeq_mnist_single(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published single-convolution pcDEQ-1 of 82 channels."""
    return PcDEQ((82,), image_size=28, pool_size=8, activation="tanh", **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="mnist")
def pcdeq_mnist_multi(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published multi-convolution pcDEQ-1 of 12, 24 and 48 channels, with unpadded halving."""
    return PcDEQ(
        (12, 24, 48), image_size=28, padding=0, pool_size=4, activation="softsign", **{"in_chans": 1, **runtime}
    )


@register(task="image-classification", dataset="cifar10", recipe="pcdeq-cifar")
def pcdeq_cifar(**runtime: Unpack[Runtime]) -> PcDEQ:
    """Three pcDEQ-1 equilibria of growing width, halving the image between them."""
    return PcDEQ((64, 120, 160), image_size=32, pool_size=4, **runtime)


@register(task="image-classification", dataset="cifar10")
def pcdeq_cifar_single(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published single-convolution pcDEQ-2 of 125 channels, for CIFAR-10 without augmentation and SVHN."""
    return PcDEQ((125,), image_size=32, pool_size=8, activation="sigmoid", **runtime)


@register(task="image-classification", dataset="cifar10")
def pcdeq_cifar_multi(**runtime: Unpack[Runtime]) -> PcDEQ:
    """The published multi-convolution pcDEQ-1 of 100, 120 and 140 channels, for CIFAR-10 with augmentation."""
    return PcDEQ((100, 120, 140), image_size=32, padding=0, pool_size=4, activation="relu6", **runtime)
