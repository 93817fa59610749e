"""The one loop: counting, stopping and the best iterate live here and nowhere else."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Generic, Self, TypeAlias, TypeVar

from torch import Tensor

from deqzoo.solution import Solution
from deqzoo.solvers.progress import Progress, start_progress

Map: TypeAlias = Callable[[Tensor], Tensor]
"""A map of matrices (B, N), whose rows do not mix."""

S = TypeVar("S")


@dataclass(frozen=True)
class JudgedMap:
    """A map T that is iterated in place of another, f, whose residual is what counts.

    Attributes:
        map: T.
        judge: takes s and T(s), and returns f(z) and f(z) − z at the z that s stands for, all of B rows.

    """

    map: Map
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, s: Tensor) -> Tensor:
        return self.map(s)


class Counted:
    """A map that knows how often it was evaluated."""

    def __init__(self, f: Map) -> None:
        self._f = f
        self.num_evals = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.num_evals += 1
        return self._f(z)

    def judged(self, z: Tensor, fz: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what tells how good z is: f(z) and g = f(z) − z, or those of the map that f stands in for."""
        return self._f.judge(z, fz) if isinstance(self._f, JudgedMap) else (fz, g)


@dataclass(frozen=True)
class AffineMap:
    """The map u ↦ J u + b with J given as a product with vectors: what a backward solve iterates."""

    linear: Map
    offset: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        return self.linear(u) + self.offset


@dataclass(frozen=True, kw_only=True)
class FixedPointSolver(abc.ABC):
    """Solves z = f(z) for every row of a matrix. A value: frozen, comparable, picklable, shareable.

    A sample has converged when ‖f(z) − z‖ ≤ atol + rtol ‖f(z)‖. With rtol = atol = 0 nothing ever has: the
    solver then spends exactly its budget and never waits for the device.

    Attributes:
        rtol: relative tolerance.
        atol: absolute tolerance, in the units of z.
        max_steps: the most steps to take, of one evaluation of f each unless the solver says otherwise. The last
            evaluation measures the residual: k of them lead to z₀, …, z₍ₖ₋₁₎.
        patience: steps without improvement after which a sample counts as stalled.

    Raises:
        ValueError: for negative or non-finite tolerances and budgets below one step.

    """

    rtol: float = 1e-4
    atol: float = 0.0
    max_steps: int = 50
    patience: int = 20

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ValueError(
                    f"{type(self).__name__} got {name}={value!r}. Tolerances are finite and not negative: "
                    f"use {name}=1e-4, say, or rtol=0 for a fixed budget of max_steps."
                )
        for name in ("max_steps", "patience"):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= 1):
                raise ValueError(
                    f"{type(self).__name__} got {name}={value!r}. It takes a whole number of steps, at least one: use "
                    f"{name}=50, say."
                )

    @property
    def fixed_budget(self) -> bool:
        """Whether the solver spends exactly `max_steps`, whatever the residual."""
        return self.rtol == 0 and self.atol == 0

    def tightened(self, factor: float) -> Self:
        """Returns this solver with `factor` times its tolerances."""
        return self if factor == 1 else replace(self, rtol=factor * self.rtol, atol=factor * self.atol)

    @abc.abstractmethod
    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None) -> Solution[Tensor]:
        """Returns each row's best iterate.

        Args:
            f: the map of matrices (B, N).
            z0: (B, N) where to start.
            fz0: (B, N) f(z0), if it is known already. The step from there is free, and z0 itself is no candidate.

        """


@dataclass(frozen=True, kw_only=True)
class IterativeSolver(FixedPointSolver, Generic[S]):
    """A solver that proposes the next iterate from the last one and f there.

    Attributes:
        check_every: evaluations between two looks at the residual. Looking costs two norms and, on a GPU, one
            small transfer; iterates in between are never returned.

    """

    check_every: int = 1

    differentiable = False
    """Whether `step` is free of in-place updates, so that autograd can run through it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check_every < 1:
            raise ValueError(f"{type(self).__name__} got check_every={self.check_every}. Use 1 to check every step.")

    @abc.abstractmethod
    def init(self, z0: Tensor) -> S:
        """Returns the state before the first step from z0 (B, N)."""

    def gap(self, z: Tensor, fz: Tensor, state: S) -> Tensor:
        """Returns g = f(z) − z (B, N), perhaps where `state` keeps it."""
        return fz - z

    @abc.abstractmethod
    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: S) -> tuple[Tensor, S]:
        """Returns the next iterate and state.

        Args:
            f: the map, for the solvers that need more of it than fz.
            z: (B, N) the current iterate; never to be changed in place.
            fz: (B, N) f(z).
            g: (B, N) f(z) − z.
            state: what the last step, or `init`, returned; may be changed in place.

        """

    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None) -> Solution[Tensor]:
        counted = Counted(f)
        progress: Progress = start_progress(self, z0)
        z, state = z0, self.init(z0)
        if fz0 is not None:
            z, state = self.step(counted, z0, fz0, self.gap(z0, fz0, state), state)
        for step in range(1, self.max_steps + 1):
            fz = counted(z)
            g = self.gap(z, fz, state)
            last = step == self.max_steps
            if (last or step % self.check_every == 0) and progress.observe(
                z, *counted.judged(z, fz, g), step, counted.num_evals
            ):
                break
            if not last:
                z, state = self.step(counted, z, fz, g, state)
        return Solution(value=progress.value(), stats=progress.stats(counted.num_evals), state=state)
