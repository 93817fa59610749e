"""Per-sample bookkeeping of a solve: the best iterate, its residual, when and how it ended.

There are two kinds. An adaptive solve decides on the host, from one small transfer per look, and copies nothing
while all samples improve. A fixed budget decides nothing: its bookkeeping stays on the device and waits for nobody.
"""

import abc
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deqzoo.solution import Stats, Status
from deqzoo.solvers.rows import row_norms

if TYPE_CHECKING:
    from deqzoo.solvers.base import FixedPointSolver

_TINY = np.finfo(np.float64).tiny


class Progress(abc.ABC):
    """What is known of every sample so far."""

    @abc.abstractmethod
    def observe(self, z: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: int) -> bool:
        """Takes note of the iterate z with f(z) and g = f(z) − z, all (B, N). Returns whether all samples are done."""

    @abc.abstractmethod
    def value(self) -> Tensor:
        """Returns (B, N) the best iterate of each sample, NaN where f was finite at none."""

    @abc.abstractmethod
    def stats(self, num_evals: int) -> Stats:
        """Returns the outcome, on the device of the state."""


def start_progress(solver: "FixedPointSolver", z0: Tensor) -> Progress:
    """Returns the bookkeeping that `solver` needs for a solve from z0 (B, N)."""
    return FixedBudget(z0) if solver.fixed_budget else Adaptive(solver, z0)


class Adaptive(Progress):
    """Stops each sample at its tolerance, when it stalls, or when it is no longer finite."""

    def __init__(self, solver: "FixedPointSolver", z0: Tensor) -> None:
        batch = z0.shape[0]
        self._best = z0
        self._rtol, self._atol, self._patience = solver.rtol, solver.atol, solver.patience
        self._residual = np.full(batch, np.inf)
        self._best_step = np.zeros(batch, dtype=np.int64)
        self._num_steps = np.zeros(batch, dtype=np.int64)
        self._status = np.full(batch, Status.MAX_STEPS, dtype=np.int64)
        self._active = np.ones(batch, dtype=bool)
        self._all_active = True

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: int) -> bool:
        gap, scale = _on_host(row_norms(g), row_norms(fz))
        finite = np.isfinite(gap)
        if not finite.all():  # infinities below are meant, and a sample that is lost must not be taken for the best
            with np.errstate(invalid="ignore"):
                scale = np.where(finite & np.isfinite(scale), scale, np.inf)
                residual = np.where(finite, gap / scale, np.inf)
        else:
            # 0/0 is a sample that rests at zero: its residual is zero.
            residual = gap / np.maximum(scale, _TINY)
        better = residual < self._residual
        converged = gap <= self._atol + self._rtol * scale
        if not self._all_active:
            better &= self._active
            converged &= self._active
        some_converged = converged.any()
        taken = (better | converged) if some_converged else better
        if taken.all():
            self._best = z  # no copy: nothing older is worth keeping
            self._residual = residual
            self._num_steps[:] = num_evals
            self._best_step[:] = step
            if not some_converged:
                return False
        elif taken.any():
            rows = torch.from_numpy(taken).to(z.device, non_blocking=True)
            self._best = torch.where(rows[:, None], z, self._best)
            self._residual[taken] = residual[taken]
            self._num_steps[taken] = num_evals
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

    def value(self) -> Tensor:
        lost = np.isinf(self._residual)
        if not lost.any():
            return self._best
        rows = torch.from_numpy(lost).to(self._best.device)
        return torch.where(rows[:, None], torch.nan, self._best)

    def stats(self, num_evals: int) -> Stats:
        device = self._best.device
        return Stats(
            num_evals=num_evals,
            num_steps=torch.from_numpy(self._num_steps).to(device),
            residual=torch.from_numpy(self._residual).to(device, row_norms(self._best[:0]).dtype),
            status=torch.from_numpy(self._status).to(device),
        )


def _on_host(*rows: Tensor) -> tuple[np.ndarray, ...]:
    """Returns vectors (B,) as float64 arrays, by one transfer at most."""
    if rows[0].is_cpu:
        return tuple(row.numpy().astype(np.float64) for row in rows)
    return tuple(torch.stack(rows).cpu().numpy().astype(np.float64))


class FixedBudget(Progress):
    """Keeps the best iterate of each sample without ever asking the device for an answer."""

    def __init__(self, z0: Tensor) -> None:
        self._best = z0
        self._residual = row_norms(z0).fill_(torch.inf)
        self._num_steps = torch.zeros(z0.shape[0], dtype=torch.int64, device=z0.device)
        self._finite = torch.ones(z0.shape[0], dtype=torch.bool, device=z0.device)

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, step: int, num_evals: int) -> bool:
        gap = row_norms(g)
        residual = torch.where(gap == 0, gap, gap / row_norms(fz))
        taken = residual < self._residual
        self._best = torch.where(taken[:, None], z, self._best)
        self._residual = torch.where(taken, residual, self._residual)
        self._num_steps = torch.where(taken, num_evals, self._num_steps)
        self._finite &= gap.isfinite()
        return False

    def value(self) -> Tensor:
        return torch.where(self._residual.isinf()[:, None], torch.nan, self._best)

    def stats(self, num_evals: int) -> Stats:
        status = torch.where(self._finite, int(Status.MAX_STEPS), int(Status.NONFINITE))
        status = torch.where(self._residual == 0, int(Status.CONVERGED), status)
        return Stats(num_evals=num_evals, num_steps=self._num_steps, residual=self._residual, status=status)
