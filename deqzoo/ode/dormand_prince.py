"""Dormand and Prince's adaptive method."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqzoo.ode.base import Integrator, Span, Step, Visitor, column, stage_times
from deqzoo.ode.step_control import StepControl
from deqzoo.ode.tableau import DORMAND_PRINCE, DORMAND_PRINCE_ERROR, Field, take_step, weighted_sum
from deqzoo.solution import Solution
from deqzoo.solvers.rows import row_norms, safe_row_norms


@dataclass(frozen=True, kw_only=True)
class DormandPrince(Integrator):
    """The Runge-Kutta pair of orders 5 and 4, with a step size for each sample and each moment.

    A step is accepted if its estimated error ‖e‖ ≤ atol + rtol max(‖h‖, ‖h₊‖), with h before and h₊ after it. Every
    sample has its own time, and takes the same steps alone as in any batch. A step costs six evaluations, the first
    guess at its length two more in all.

    The residual of its solutions is each sample's largest ‖e‖ / max(‖h‖, ‖h₊‖), inf where the end was not reached. A
    sample that is out of steps has the value that it got to; one that met NaN, inf or a pole, where steps shrink to
    nothing, is NONFINITE and has the value NaN.

    Attributes:
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in the units of h.
        max_steps: the most steps that a sample may try, rejected ones included.

    Raises:
        ValueError: for tolerances that are negative, not finite or all zero, and budgets below one step.

    """

    rtol: float = 1e-4
    atol: float = 0.0
    max_steps: int = 1000

    tableau = DORMAND_PRINCE

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"DormandPrince got {name}={value}. Tolerances are finite and not negative: use {name}=1e-4, say."
                )
        if self.rtol == self.atol == 0:
            raise ValueError(
                "DormandPrince got rtol=0 and atol=0. No step is free of error: use rtol=1e-4, say, or "
                "RK4(num_steps=8) for a fixed budget."
            )
        if self.max_steps < 1:
            raise ValueError(
                f"DormandPrince got max_steps={self.max_steps}. It takes at least one step: use max_steps=100, say."
            )

    @property
    def fixed_budget(self) -> bool:
        return False

    def solve(
        self, f: Field, h0: Tensor, span: Span, *, num_blocks: int = 1, visit: Visitor | None = None
    ) -> Solution[Tensor]:
        control = StepControl(self, span)
        h = h0
        if control.active.any():
            slope, size = self._start(f, h, control, num_blocks)
            for _ in range(self.max_steps if control.active.any() else 0):
                t, dt = control.t, control.proposal()
                times, lengths = stage_times(self.tableau, t, dt, h)
                stages = take_step(self.tableau, f, h, times, lengths, slope)
                last = f(stages.end, times[-1])
                control.count(len(stages.slopes))
                error = lengths * weighted_sum(DORMAND_PRINCE_ERROR, [*stages.slopes, last])
                errors, sizes = _norms(num_blocks, control.active, error, stages.end)
                accepted = control.judge(dt, errors, np.maximum(size, sizes))
                if accepted.any():
                    if visit is not None:
                        visit(Step(t=t, dt=np.where(accepted, dt, 0.0), stages=stages))
                    if accepted.all():
                        h, slope = stages.end, last
                    else:
                        rows = column(accepted, h)
                        h, slope = torch.where(rows, stages.end, h), torch.where(rows, last, slope)
                    size = np.where(accepted[:, None], sizes, size)
                if not control.active.any():
                    break
        if control.lost.any():
            h = h.masked_fill(column(control.lost, h), torch.nan)
        return Solution(value=h, stats=control.stats(h), state=control.reached())

    def _start(self, f: Field, h: Tensor, control: StepControl, num_blocks: int) -> tuple[Tensor, np.ndarray]:
        """Chooses the first steps; returns f (B, N) and the norms (B, K) of h at the start."""
        times, _ = stage_times(self.tableau, control.t, np.zeros_like(control.t), h)
        slope = f(h, times[0])
        control.count(1)
        slopes, size = _norms(num_blocks, control.active, slope, h)
        trial = control.trial_step(size, slopes)
        if control.active.any():
            times, lengths = stage_times(self.tableau, control.t, trial, h)
            change = f(h + lengths * slope, times[-1]) - slope
            control.count(1)
            (changes,) = _norms(num_blocks, control.active, change)
            control.start(size, slopes, changes, trial)
        return slope, size


def _norms(num_blocks: int, active: np.ndarray, *matrices: Tensor) -> tuple[np.ndarray, ...]:
    """Returns (B, K) norms of blocks of columns of matrices (B, N), by one transfer; in float64."""
    blocks = [x.reshape(x.shape[0] * num_blocks, x.shape[1] // num_blocks) for x in matrices]
    norms = _on_host([row_norms(x) for x in blocks], num_blocks)
    # Squares may have left the range of the dtype though the numbers are in it.
    plain = np.isfinite(norms) & (norms > 0)
    if not plain[:, active].all():
        norms = np.where(plain, norms, _on_host([safe_row_norms(x) for x in blocks], num_blocks))
    return tuple(norms)


def _on_host(norms: list[Tensor], num_blocks: int) -> np.ndarray:
    """Returns (M, B, K)."""
    stacked = torch.stack(norms).detach().cpu().double().numpy()
    return stacked.reshape(len(norms), -1, num_blocks)
