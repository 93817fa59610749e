"""Per-sample control of the step size, on the host: where each sample is, how far it may step, how it ended."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from deqzoo.ode.base import Reached, Span
from deqzoo.solution import Stats, Status

if TYPE_CHECKING:
    from deqzoo.ode.dormand_prince import DormandPrince

# E. Hairer, S. P. Nørsett & G. Wanner, "Solving ordinary differential equations I", section II.4: a controller that
# weighs the error of this step and of the last, with the constants of their code dopri5.
_SAFETY, _THIS, _LAST = 0.9, 0.17, 0.04
_SHRINK, _GROW = 0.2, 10.0

# A remainder hardly longer than the step is taken at once.
_STRETCH = 1.01


class StepControl:
    """What is known of every sample so far.

    Args:
        integrator: whose tolerances hold.
        span: the intervals.

    """

    def __init__(self, integrator: "DormandPrince", span: Span) -> None:
        batch = len(span.start)
        self._rtol, self._atol = integrator.rtol, integrator.atol
        self._span = span
        self._length = np.abs(span.end - span.start)
        self._sign = np.sign(span.end - span.start)
        self._next = np.zeros(batch)
        self._last_ratio = np.full(batch, 1e-4)
        self._rejected = np.zeros(batch, dtype=bool)
        self._worst = np.zeros(batch)
        self._num_evals = np.zeros(batch, dtype=np.int64)
        self._status = np.where(self._length > 0, Status.MAX_STEPS, Status.CONVERGED)
        self.t = span.start.copy()
        self.active = self._length > 0
        self.total_evals = 0

    def count(self, num_evals: int) -> None:
        """Notes evaluations of f for all samples under way."""
        self.total_evals += num_evals
        self._num_evals[self.active] += num_evals

    def trial_step(self, size: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Returns (B,) steps that show how fast the slope changes, from the norms (B, K) of h and f at the start.

        A sample with a slope that is not finite ends here.
        """
        self._end(self.active & ~np.isfinite(slope).all(1), Status.NONFINITE)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            trial = 0.01 * self._scale_of_start(size, slope) / slope
        trial = np.where(np.isfinite(trial), trial, self._length[:, None]).min(1)
        return self._sign * np.where(self.active, np.minimum(trial, self._length), 0)

    def start(self, size: np.ndarray, slope: np.ndarray, change: np.ndarray, trial: np.ndarray) -> None:
        """Chooses the first steps, by section II.4 of Hairer et al., from the `change` (B, K) of f over `trial`."""
        tolerance = self._atol + self._rtol * self._scale_of_start(size, slope)
        trial = np.abs(trial)
        with np.errstate(invalid="ignore", over="ignore"):
            curvature = change / np.maximum(trial, _TINY)[:, None]
            steepness = np.maximum(slope, np.where(np.isfinite(curvature), curvature, 0)) / np.maximum(tolerance, _TINY)
        step = np.min(np.power(0.01 / np.maximum(steepness, _TINY), 0.2), axis=1)
        self._next = np.minimum(step, 100 * trial)

    def _scale_of_start(self, size: np.ndarray, slope: np.ndarray) -> np.ndarray:
        # Of samples that start at or near zero, the scale is how far the slope takes them.
        slope = np.where(np.isfinite(slope), slope, 0)
        return np.maximum(size, 0.01 * self._length[:, None] * slope)

    def proposal(self) -> np.ndarray:
        """Returns (B,) the steps to try, 0 for samples that have ended."""
        left = np.abs(self._span.end - self.t)
        step = np.where(left <= _STRETCH * self._next, left, self._next)
        return np.where(self.active, self._sign * step, 0.0)

    def judge(self, dt: np.ndarray, error: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Returns (B,) which of the tried steps are accepted, and chooses the next.

        Args:
            dt: (B,) the steps.
            error: (B, K) norms of their estimated errors, for each block of columns.
            size: (B, K) the larger of the norms of h before and after.

        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            relative = np.where(error == 0, 0.0, error / size).max(1)
            ratio = np.where(error == 0, 0.0, error / (self._atol + self._rtol * size)).max(1)
        ratio = np.where(np.isfinite(ratio), ratio, np.inf)
        arriving = np.abs(dt) >= np.abs(self._span.end - self.t)
        # A solution that leads steps on and on towards one moment does not get beyond it.
        stuck = self.active & ~arriving & (np.abs(dt) <= self._shortest())
        accepted = self.active & ~stuck & (ratio <= 1)
        with np.errstate(divide="ignore"):
            factor = _SAFETY * np.power(ratio, -_THIS) * np.power(self._last_ratio, _LAST)
        # Right after a rejection the step does not grow.
        most = np.where(accepted & ~self._rejected, _GROW, 1.0)
        self._next = np.abs(dt) * np.clip(factor, _SHRINK, most)
        self._last_ratio = np.where(accepted, np.maximum(ratio, 1e-4), self._last_ratio)
        self._rejected = ~accepted
        self._worst = np.where(accepted, np.maximum(self._worst, relative), self._worst)
        # What reaches the end reaches it exactly.
        arrived = accepted & arriving
        self.t = np.where(arrived, self._span.end, np.where(accepted, self.t + dt, self.t))
        self._end(arrived, Status.CONVERGED)
        self._end(stuck, Status.NONFINITE)
        return accepted

    def _shortest(self) -> np.ndarray:
        """Returns (B,) steps that hardly move t any more."""
        return 16 * np.finfo(np.float64).eps * np.maximum(np.abs(self.t), np.abs(self._span.end))

    def _end(self, rows: np.ndarray, status: Status) -> None:
        self._status[rows] = status
        self.active = self.active & ~rows

    @property
    def lost(self) -> np.ndarray:
        """(B,) bool: the samples that met NaN, inf or a pole."""
        return self._status == Status.NONFINITE

    def reached(self) -> Reached:
        """Returns how far the samples got."""
        return Reached(t=np.where(self.lost, self._span.start, self.t), lost=self.lost)

    def stats(self, like: torch.Tensor) -> Stats:
        """Returns the outcome, on the device and in the dtype of `like`."""
        residual = np.where(self._status == Status.CONVERGED, self._worst, np.inf)
        return Stats(
            num_evals=self.total_evals,
            num_steps=torch.from_numpy(self._num_evals).to(like.device),
            residual=torch.from_numpy(residual).to(like.device, like.dtype),
            status=torch.from_numpy(self._status.astype(np.int64)).to(like.device),
        )


_TINY = np.finfo(np.float64).tiny
