"""What an integrator is: a value that carries h' = f(h, t) from one time to another, each sample on its own."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from deqzoo.errors import StructureError
from deqzoo.ode.tableau import Field, Stages, Tableau
from deqzoo.solution import Solution


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of every sample, of length 0 for those that rest.

    Attributes:
        t: (B,) float64, where each starts.
        dt: (B,) float64, how long it is: negative for those that go back in time.
        stages: what it is made of.

    """

    t: np.ndarray
    dt: np.ndarray
    stages: Stages


Visitor = Callable[[Step], None]
"""Sees the steps as they are accepted."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The intervals to integrate over.

    Attributes:
        start: (B,) float64.
        end: (B,) float64; before the start, to go back in time.

    """

    start: np.ndarray
    end: np.ndarray


def as_span(t0: float | Tensor, t1: float | Tensor, batch: int) -> Span:
    """Returns intervals for `batch` samples from numbers, or from one number (B,) for each.

    Raises:
        StructureError: for times of another shape, that are not finite or that require gradients.

    """
    return Span(start=_times("t0", t0, batch), end=_times("t1", t1, batch))


def _times(name: str, value: float | Tensor, batch: int) -> np.ndarray:
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise StructureError(
                f"{name} requires gradients. Times are constants of an integration: detach it, and scale f by a "
                "factor that requires gradients instead."
            )
        if value.ndim and tuple(value.shape) != (batch,):
            raise StructureError(
                f"{name} has shape {tuple(value.shape)} for a batch of {batch}. A time is one number, or one for each "
                f"sample: use a tensor of shape ({batch},)."
            )
    given = value.cpu().numpy() if isinstance(value, Tensor) else value
    times = np.broadcast_to(np.asarray(given, dtype=np.float64), (batch,))
    if not np.isfinite(times).all():
        raise StructureError(f"{name} is not finite. An integration ends somewhere: use finite times.")
    return times.copy()


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far an integration got: the `state` of its solution.

    Attributes:
        t: (B,) float64, the time that each sample's value belongs to; the start for those that are lost.
        lost: (B,) bool, the samples that met NaN, inf or a pole.

    """

    t: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class Integrator(abc.ABC):
    """Integrates every row of a matrix by a Runge-Kutta method. A value: frozen, comparable, picklable, shareable.

    Has `rtol` and `max_steps`, as solvers of fixed points do: rtol = 0 if nothing is asked of the error.
    """

    tableau: ClassVar[Tableau]

    @property
    @abc.abstractmethod
    def fixed_budget(self) -> bool:
        """Whether the steps are the same whatever the field is."""

    @abc.abstractmethod
    def solve(
        self, f: Field, h0: Tensor, span: Span, *, num_blocks: int = 1, visit: Visitor | None = None
    ) -> Solution[Tensor]:
        """Returns h (B, N) at the ends of the intervals, with a `Reached` as its state.

        Args:
            f: the field of matrices (B, N).
            h0: (B, N) at the starts.
            span: the intervals.
            num_blocks: of equally many columns each, whose errors are measured on their own scales.
            visit: is called with each step once it is accepted.

        """


def stage_times(tableau: Tableau, t: np.ndarray, dt: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (S, B) the times of the stages and (B, 1) the lengths of steps, like a state, by one transfer."""
    rows = np.stack([*(t + c * dt for c in tableau.c), dt])
    control = torch.from_numpy(rows).to(like.device, like.dtype, non_blocking=True)
    return control[:-1], control[-1][:, None]


def column(rows: np.ndarray, like: Tensor) -> Tensor:
    """Returns a mask (B,) as a column (B, 1), where the matrix `like` is."""
    return torch.from_numpy(rows).to(like.device)[:, None]
