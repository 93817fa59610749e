"""Per-sample bookkeeping of a solve: the best iterate, its residual, when and how it ended.

There are two kinds. An adaptive solve decides on the host, from one small transfer per look, and copies nothing
while all samples improve. A fixed budget decides nothing: its bookkeeping stays on the device and waits for nobody.
"""

import abc
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from deqzoo.solution import Stats, Status
from deqzoo.solvers.rows import row_norms, safe_row_norms

if TYPE_CHECKING:
    from deqzoo.solvers.base import FixedPointSolver


Evals: TypeAlias = int | Tensor
"""A number of evaluations: one for all samples, or (B,) one for each."""


class Progress(abc.ABC):
    """What is known of every sample so far.

    The best iterate is that of the smallest gap ‖f(z) − z‖, not of the smallest relative residual: the latter is 1 at
    z = 0 whatever f is, which would make zero the best of two steps that overshoot.
    """

    @abc.abstractmethod
    def observe(self, carry: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: Evals) -> bool:
        """Takes note of an iterate z with f(z) and g = f(z) − z, all (B, N), and returns whether all samples are done.

        `carry` (B, ...) is what to keep of it: z, or more. `num_evals` is when it was met.
        """

    @abc.abstractmethod
    def value(self) -> Tensor:
        """Returns (B, ...) what was kept of the best iterate of each sample, NaN where f was finite at none."""

    @abc.abstractmethod
    def stats(self, num_evals: int) -> Stats:
        """Returns the outcome, on the device of the state."""


def start_progress(solver: "FixedPointSolver", carry: Tensor) -> Progress:
    """Returns the bookkeeping that `solver` needs for a solve that starts from `carry` (B, ...)."""
    return FixedBudget(carry) if solver.fixed_budget else Adaptive(solver, carry)


class Adaptive(Progress):
    """Stops each sample at its tolerance, when it stalls, or when it is no longer finite."""

    def __init__(self, solver: "FixedPointSolver", carry: Tensor) -> None:
        batch = carry.shape[0]
        self._best = carry
        self._rtol, self._atol, self._patience = solver.rtol, solver.atol, solver.patience
        self._gap, self._scale = [math.inf] * batch, [1.0] * batch
        self._best_step = np.zeros(batch, dtype=np.int64)
        self._num_steps = np.zeros(batch, dtype=np.int64)
        self._status = np.full(batch, Status.MAX_STEPS, dtype=np.int64)
        self._active = np.ones(batch, dtype=bool)
        self._all_active = True
        self._dtype = torch.float32

    def observe(self, carry: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: Evals) -> bool:
        norms = row_norms(g), row_norms(fz)
        self._dtype = norms[0].dtype
        gap, scale = on_host(*norms)
        # As after most steps, all samples improved and none is done. Lists, because f has just flushed the caches: a
        # few array operations, each run once, would cost a hundred times their arithmetic.
        if self._all_active and all(map(self._goes_on, gap, scale, self._gap)):
            self._take_all(carry, gap, scale, step, num_evals)
            return False
        return self._settle(carry, fz, g, np.array(gap), np.array(scale), step, num_evals)

    def _goes_on(self, gap: float, scale: float, before: float) -> bool:
        return self._atol + self._rtol * scale < gap < before and scale > 0

    def _settle(
        self, carry: Tensor, fz: Tensor, g: Tensor, gap: np.ndarray, scale: np.ndarray, step: int, num_evals: Evals
    ) -> bool:
        """Does what `observe` does, sample by sample."""
        finite = np.isfinite(gap) & np.isfinite(scale)
        plain = finite & (gap > 0) & (scale > 0)
        if not plain.all():
            # Squares may have left the range of the dtype though the numbers are in it.
            safe = on_host(safe_row_norms(g), safe_row_norms(fz))
            gap, scale = np.where(plain, gap, safe[0]), np.where(plain, scale, safe[1])
            finite = np.isfinite(gap) & np.isfinite(scale)
            gap, scale = np.where(finite, gap, np.inf), np.where(finite, scale, 1.0)
        before = np.array(self._gap)
        converged = self._active & (gap <= self._atol + self._rtol * scale)
        taken = converged | self._active & (gap < before)
        if taken.all():
            self._take_all(carry, gap.tolist(), scale.tolist(), step, num_evals)
        elif taken.any():
            rows = torch.from_numpy(taken).to(carry.device, non_blocking=True)
            self._best = torch.where(rows[:, None], carry, self._best)
            self._gap = np.where(taken, gap, before).tolist()
            self._scale = np.where(taken, scale, self._scale).tolist()
            self._num_steps[taken] = np.broadcast_to(num_evals, taken.shape)[taken]
            self._best_step[taken] = step
        stalled = self._active & ~taken & (step - self._best_step >= self._patience)
        for rows, status in (
            (converged, Status.CONVERGED),
            (stalled, Status.STALLED),
            (self._active & ~finite, Status.NONFINITE),
        ):
            self._status[rows] = status
            self._active &= ~rows
        self._all_active = self._active.all()
        return not self._active.any()

    def _take_all(self, carry: Tensor, gap: list[float], scale: list[float], step: int, num_evals: Evals) -> None:
        self._best = carry  # no copy: nothing older is worth keeping
        self._gap, self._scale = gap, scale
        self._num_steps[:] = num_evals
        self._best_step[:] = step

    def value(self) -> Tensor:
        if math.inf not in self._gap:
            return self._best
        rows = torch.from_numpy(np.isinf(self._gap)).to(self._best.device)
        return torch.where(rows[:, None], torch.nan, self._best)

    def stats(self, num_evals: int) -> Stats:
        device = self._best.device
        with np.errstate(divide="ignore", over="ignore"):
            # 0/0 is a sample that rests at zero.
            gap = np.array(self._gap)
            residual = np.divide(gap, self._scale, out=np.zeros_like(gap), where=gap > 0)
        return Stats(
            num_evals=num_evals,
            num_steps=torch.from_numpy(self._num_steps).to(device),
            residual=torch.from_numpy(residual).to(device, self._dtype),
            status=torch.from_numpy(self._status).to(device),
        )


def on_host(*rows: Tensor) -> list[list[float]]:
    """Returns vectors (B,) as lists, by one transfer at most."""
    return [row.tolist() for row in rows] if rows[0].is_cpu else torch.stack(rows).tolist()


class FixedBudget(Progress):
    """Keeps the best iterate of each sample without ever asking the device for an answer."""

    def __init__(self, carry: Tensor) -> None:
        self._best = carry
        self._gap = row_norms(carry).fill_(torch.inf)
        self._scale = torch.ones_like(self._gap)
        self._num_steps = torch.zeros(carry.shape[0], dtype=torch.int64, device=carry.device)
        self._finite = torch.ones(carry.shape[0], dtype=torch.bool, device=carry.device)

    def observe(self, carry: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: Evals) -> bool:
        gap, scale = row_norms(g), row_norms(fz)
        finite = gap.isfinite() & scale.isfinite()
        taken = finite & (gap < self._gap)
        # Where the answer is at hand: as a rule all samples improve, and nothing has to be copied.
        free = carry.is_cpu and not torch.compiler.is_compiling()
        self._best = carry if free and bool(taken.all()) else torch.where(taken[:, None], carry, self._best)
        self._gap, self._scale = torch.where(taken, gap, self._gap), torch.where(taken, scale, self._scale)
        self._num_steps = torch.where(taken, num_evals, self._num_steps)
        self._finite &= finite
        return False

    def value(self) -> Tensor:
        return torch.where(self._gap.isinf()[:, None], torch.nan, self._best)

    def stats(self, num_evals: int) -> Stats:
        status = torch.where(self._finite, int(Status.MAX_STEPS), int(Status.NONFINITE))
        status = torch.where(self._gap == 0, int(Status.CONVERGED), status)
        residual = torch.where(self._gap == 0, 0, self._gap / self._scale)
        return Stats(
            num_evals=num_evals, num_steps=self._num_steps, residual=residual, status=status, fixed_budget=True
        )
