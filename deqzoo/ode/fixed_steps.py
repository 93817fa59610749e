"""Integrators that take a given number of equal steps."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from deqzoo.ode.base import Integrator, Reached, Span, Step, Visitor, stage_times
from deqzoo.ode.tableau import CLASSIC, EULER, Field, take_step
from deqzoo.solution import Solution, Stats, Status


@dataclass(frozen=True)
class FixedSteps(Integrator):
    """Takes equal steps and asks neither for their errors nor, on a GPU, for anything.

    Its solutions have the status MAX_STEPS, as no tolerance is known to hold, and a residual of NaN, as none is
    measured.

    Attributes:
        num_steps: how many.

    Raises:
        ValueError: for less than one step.

    """

    num_steps: int

    rtol: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            name = type(self).__name__
            raise ValueError(f"{name} got num_steps={self.num_steps}. It takes at least one step: use {name}(1).")

    @property
    def max_steps(self) -> int:
        """The same as `num_steps`."""
        return self.num_steps

    @property
    def fixed_budget(self) -> bool:
        return True

    def schedule(self, span: Span) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (t (B,), dt (B,)) of each step; none where all intervals are empty."""
        length = span.end - span.start
        if not length.any():
            return []
        dt = length / self.num_steps
        return [(span.start + k * dt, dt) for k in range(self.num_steps)]

    def solve(
        self, f: Field, h0: Tensor, span: Span, *, num_blocks: int = 1, visit: Visitor | None = None
    ) -> Solution[Tensor]:
        h, num_evals = h0, 0
        for t, dt in self.schedule(span):
            stages = take_step(self.tableau, f, h, *stage_times(self.tableau, t, dt, h))
            num_evals += len(stages.slopes)
            if visit is not None:
                visit(Step(t=t, dt=dt, stages=stages))
            h = stages.end
        return Solution(
            value=h,
            stats=self.stats(h, span, num_evals),
            state=Reached(t=span.end, lost=np.zeros(len(span.end), dtype=bool)),
        )

    def stats(self, value: Tensor, span: Span, num_evals: int) -> Stats:
        """Returns the outcome of a solve that ended with `value` (B, N)."""
        resting = torch.from_numpy(span.start == span.end).to(value.device)
        status = torch.where(resting, int(Status.CONVERGED), int(Status.MAX_STEPS))
        status = torch.where(value.detach().isfinite().all(1), status, int(Status.NONFINITE))
        residual = torch.full(status.shape, torch.nan, dtype=value.dtype, device=value.device).masked_fill(resting, 0)
        return Stats(
            num_evals=num_evals,
            num_steps=(~resting).long() * num_evals,
            residual=residual,
            status=status,
            fixed_budget=True,
        )


@dataclass(frozen=True)
class Euler(FixedSteps):
    """h ← h + Δ f(h, t), `num_steps` times: of first order, one evaluation per step."""

    tableau = EULER


@dataclass(frozen=True)
class RK4(FixedSteps):
    """The classic Runge-Kutta method, `num_steps` times: of fourth order, four evaluations per step."""

    tableau = CLASSIC
