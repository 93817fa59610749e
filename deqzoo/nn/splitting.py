"""Operator splittings for z = ReLU(W z + x) with a monotone I − W (Winston & Kolter 2020, arXiv 2006.08591).

Such a z is where the monotone z ↦ (I − W) z − x and the normals of the nonnegative cone add up to zero. Splittings
find it by steps that treat the two one after the other.
"""

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.fixed_point import Iteration


class MonotoneOperator(nn.Module, abc.ABC):
    """z ↦ W z with I − W ⪰ m I, that is ⟨v, (I − W) v⟩ ≥ m ‖v‖², for some margin m > 0.

    Splittings that need an inverse compute in states of their own, in which `embed` makes room and `crop` takes it away
    again: a convolution is easily inverted on a torus, with a border for what would come around.

    Attributes:
        margin: m.

    """

    margin: float

    @abc.abstractmethod
    def forward(self, z: Any) -> Any:
        """Returns W z, a state of the structure of z."""

    @abc.abstractmethod
    def lipschitz(self, like: Any) -> float:
        """Returns ‖I − W‖₂ for states like `like`."""

    @abc.abstractmethod
    def least_eigenvalue(self, like: Any) -> float:
        """Returns the least eigenvalue of I − (W + Wᵀ) / 2 for states like `like`, at least m if all is well."""

    @abc.abstractmethod
    def inverse(self, alpha: float, like: Any) -> Tensor:
        """Returns (I + α (I − W))⁻¹, for states like `like`, in the form that `resolve` wants.

        Raises:
            StructureError: if it has no form that is cheap enough.

        """

    @abc.abstractmethod
    def resolve(self, v: Tensor, inverse: Tensor) -> Tensor:
        """Returns (I + α (I − W))⁻¹ v, both embedded."""

    def embed(self, z: Tensor) -> Tensor:
        """Returns z with room around it, filled with zeros."""
        return z

    def crop(self, u: Tensor, like: Tensor) -> Tensor:
        """Returns u without the room that `embed` makes for states like `like`."""
        return u


def relu(z: Any) -> Any:
    """Returns the nearest nonnegative state."""
    return F.relu(z) if isinstance(z, Tensor) else tuple(map(relu, z))


@dataclass(frozen=True, kw_only=True)
class Splitting(abc.ABC):
    """A way to split. A value, like a solver, and no part of an architecture."""

    @abc.abstractmethod
    def iterate(self, operator: MonotoneOperator, x: Any) -> Iteration:
        """Returns the iteration for z = ReLU(W z + x), with `operator` as W and x as its argument."""

    @abc.abstractmethod
    def rate(self, operator: MonotoneOperator, margin: float, lipschitz: float) -> float:
        """Returns c ≤ 1: steps from u and v lead to states that differ by at most c ‖u − v‖.

        It holds for all I − W ⪰ `margin` > 0 whose norm is at most `lipschitz`; 1 where they are not known to contract.
        """


@dataclass(frozen=True, kw_only=True)
class ForwardBackward(Splitting):
    """z ← ReLU((1 − α) z + α (W z + x)): one product with W per step. Contracts for α < 2 m / L², L = ‖I − W‖₂.

    Attributes:
        alpha: α in (0, 1]; None for m / L², the best of those that certainly contract, from an estimate of L that
            every solve makes anew. Accelerated solvers often bear several times as much.

    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise ValueError(
                f"ForwardBackward got alpha={self.alpha}. A step lies in (0, 1], where 1 is plain iteration: use None "
                "for one that certainly contracts."
            )

    def iterate(self, operator: MonotoneOperator, x: Any) -> Iteration:
        alpha = self.alpha
        if alpha is None:
            alpha = min(1.0, operator.margin / operator.lipschitz(x) ** 2)
        return _ForwardBackward(operator, alpha)

    def rate(self, operator: MonotoneOperator, margin: float, lipschitz: float) -> float:
        # That of I − α (I − W); the projection leaves no more of it.
        alpha = min(1.0, operator.margin / lipschitz**2) if self.alpha is None else self.alpha
        return min(1.0, max(0.0, 1 - 2 * alpha * margin + (alpha * lipschitz) ** 2) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class PeacemanRachford(Splitting):
    """u ← 2 y − v with z = ReLU(u), v = 2 z − u and y = (I + α (I − W))⁻¹ (v + α x); z is what u stands for.

    Contracts for every α. The inverse is computed once per solve.

    Attributes:
        alpha: α > 0; near 1 / √(m L) is fastest, L = ‖I − W‖₂.

    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ValueError(
                f"PeacemanRachford got alpha={self.alpha}. A step is positive and finite: use alpha=0.5, say."
            )

    def iterate(self, operator: MonotoneOperator, x: Any) -> Iteration:
        return _PeacemanRachford(operator, self.alpha)

    def rate(self, operator: MonotoneOperator, margin: float, lipschitz: float) -> float:
        # That of (I − α (I − W)) (I + α (I − W))⁻¹; the reflection of u keeps distances or shortens them.
        size = 1 + (self.alpha * lipschitz) ** 2
        step = 2 * self.alpha * margin
        return min(1.0, max(0.0, (size - step) / (size + step)) ** 0.5)


class _ForwardBackward(Iteration):
    def __init__(self, operator: MonotoneOperator, alpha: float) -> None:
        self.operator, self.alpha = operator, alpha
        self.tightening = alpha

    def __call__(self, z: Any, x: Any) -> Any:
        z = relu(z)  # an accelerated solver may have left the cone
        return relu(_step(z, self.operator(z), x, self.alpha))

    def read(self, z: Any, x: Any) -> Any:
        return relu(z)

    def image(self, z: Any, tz: Any, x: Any) -> Any:
        return _extrapolated(relu(z), tz, self.alpha)


def _step(z: Any, wz: Any, x: Any, alpha: float) -> Any:
    """Returns (1 − α) z + α (wz + x)."""
    if isinstance(z, Tensor):
        return torch.lerp(z, (wz + x).to(z.dtype), alpha)
    return tuple(_step(*parts, alpha) for parts in zip(z, wz, x, strict=True))


def _extrapolated(z: Any, tz: Any, alpha: float) -> Any:
    """Returns ReLU(z + d) from z ≥ 0 and ReLU(z + α d), α ≤ 1: where the latter is zero, so is the former."""
    if isinstance(z, Tensor):
        return F.relu(z + (tz - z) / alpha)
    return tuple(_extrapolated(*parts, alpha) for parts in zip(z, tz, strict=True))


class _PeacemanRachford(Iteration):
    def __init__(self, operator: MonotoneOperator, alpha: float) -> None:
        self.operator, self.alpha = operator, alpha

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.operator.inverse(self.alpha, x)

    def start(self, z0: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
        return self.operator.embed(z0)

    def __call__(self, u: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
        embed = self.operator.embed
        reflected = 2 * embed(self.read(u, x, inverse)) - u
        solved = self.operator.resolve(reflected + self.alpha * embed(x.to(u.dtype)), inverse)
        return 2 * solved - reflected

    def read(self, u: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
        return relu(self.operator.crop(u, x))
