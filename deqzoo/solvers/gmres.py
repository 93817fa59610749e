"""GMRES for affine maps."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqzoo.errors import SolverError
from deqzoo.solution import Solution
from deqzoo.solvers.base import AffineMap, Counted, FixedPointSolver, Map
from deqzoo.solvers.krylov import Krylov, least_residual
from deqzoo.solvers.progress import on_host, start_progress
from deqzoo.solvers.rows import row_norms, work_dtype


@dataclass(frozen=True, kw_only=True)
class GMRES(FixedPointSolver):
    """Minimal residuals for affine maps u ↦ J u + b: the residual is the least that the products with J so far allow
    (Saad & Schultz 1986, "GMRES"). Once the memory is full, or the tolerance seems to be reached, the solution is
    formed, its true residual is looked at, and where that is too large a new space is begun from it.

    Residuals on the way are those of the small systems, so that a product is followed by two passes over the history.

    Attributes:
        memory: products before a new space is begun; one more state than that is kept.

    """

    memory: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"GMRES got memory={self.memory}. It takes at least one product: use 16 to 50.")

    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None) -> Solution[Tensor]:
        """Raises a `SolverError` for maps that are not an `AffineMap`."""
        if not isinstance(f, AffineMap):
            raise SolverError(
                "GMRES solves linear equations, such as those of a backward pass, and met a general map. "
                "Use it inside Implicit(solver=GMRES()); for the forward solve take NewtonKrylov()."
            )
        linear, known = Counted(f.linear), fz0 is not None
        if fz0 is None:
            fz0 = linear(z0) + f.offset
        progress = start_progress(self, z0)
        dtype = work_dtype(z0.dtype)
        passes = 1 if self.rtol > 300 * torch.finfo(dtype).eps else 2
        u, r = z0.to(dtype), (fz0 - z0).to(dtype)
        done = not known and progress.observe(z0, u + r, r, linear.num_evals, linear.num_evals)
        while not done and (room := min(self.memory, self.max_steps - linear.num_evals)):
            krylov, before = Krylov(r, room, passes=passes), linear.num_evals
            forecast = None if self.fixed_budget else _Forecast(self, u, krylov, room)
            for _ in range(room):
                krylov.extend(linear, z0.dtype)
                if forecast is not None and forecast.ends():
                    break
            if forecast is None:
                least, met = least_residual(krylov.matrix(), krylov.norm, krylov.noise), linear.num_evals
            else:
                least, met = forecast.least(), before + torch.from_numpy(forecast.used)
            d, r = krylov.combine(*least)
            u = u + d
            done = progress.observe(u.to(z0.dtype), u + r, r, linear.num_evals, met)
        return Solution(value=progress.value(), stats=progress.stats(linear.num_evals))


class _Forecast:
    """What residuals will be, told on the host from the Hessenberg matrices H of a Krylov space.

    With c the vector for which cᵀ H = 0 and c₀ = 1, the least residual of the small system has the coordinates
    ‖r‖ c / ‖c‖², and each column of H gives one more entry of c.

    Args:
        solver: whose tolerances count.
        u: (B, N) where the space begins.
        krylov: the space, without products so far.
        size: the most products to come.

    Attributes:
        used: (B,) after how many products each sample is at its tolerance, or all so far.

    """

    def __init__(self, solver: FixedPointSolver, u: Tensor, krylov: Krylov, size: int) -> None:
        self._rtol, self._atol = solver.rtol, solver.atol
        self._krylov = krylov
        self._norm, self._start = (np.array(values) for values in on_host(krylov.norm, row_norms(u)))
        batch = len(self._norm)
        self._h = np.zeros((batch, size + 1, size))
        self._c = np.ones((batch, size + 1))
        self._goes_on = np.ones(batch, dtype=bool)
        self._seen, self._next = 0, 1
        self.used = np.zeros(batch, dtype=np.int64)

    def ends(self) -> bool:
        """Returns whether no sample needs another product.

        Looks only when that may be: a look costs more than its arithmetic, and on a GPU a transfer.
        """
        krylov = self._krylov
        if krylov.length < self._next:
            return False
        columns, distance = krylov.columns(self._seen).cpu().numpy(), 0.0
        with np.errstate(all="ignore"):
            for k in range(self._seen + 1, krylov.length + 1):
                column, columns = columns[:, : k + 1], columns[:, k + 1 :]
                self.used[self._goes_on] = k
                self._goes_on &= column[:, k] > krylov.noise * np.linalg.norm(column, axis=1)
                self._h[:, : k + 1, k - 1] = column
                distance = self._distance(self._h[:, : k + 1, :k])
        self._seen = krylov.length
        # Half the way that is left at the speed so far, for convergence may get faster.
        self._next = min(self._h.shape[2], self._seen + max(1, int(min(self._seen, distance / 2))))
        return not self._goes_on.any()

    def least(self) -> tuple[Tensor, Tensor]:
        """Returns what `least_residual` does, with each sample's own number of products and zeros for the others."""
        k = self._seen
        y, rest = torch.zeros(len(self.used), k, dtype=torch.float64), torch.zeros(len(self.used), k + 1).double()
        h, norm = torch.from_numpy(self._h), torch.from_numpy(self._norm)
        for used in np.unique(self.used):
            rows = torch.from_numpy(self.used == used)
            found = least_residual(h[rows, : used + 1, :used], norm[rows], self._krylov.noise)
            y[rows, :used], rest[rows, : used + 1] = found
        return y, rest

    def _distance(self, h: np.ndarray) -> float:
        """Returns how many more products there will be at the speed so far, from the matrices (B, k + 1, k)."""
        k, c = h.shape[2], self._c
        c[:, k] = -(c[:, :k] * h[:, :k, -1]).sum(axis=1) / h[:, k, -1]
        gap = self._norm / np.sqrt((c[:, : k + 1] ** 2).sum(axis=1))
        self._goes_on &= np.isfinite(gap)
        rows = np.flatnonzero(self._goes_on)
        gap, norm = gap[rows], self._norm[rows]
        # The residual, and what is added to it for f(u) − u₀.
        rest = (gap**2 / norm)[:, None] * c[rows, : k + 1]
        moved = rest.copy()
        moved[:, :k] += np.linalg.solve(h[rows, 1:], -rest[:, 1:, None])[:, :, 0]
        scale = np.sqrt((moved**2).sum(axis=1) + self._start[rows] ** 2)  # as if both were at right angles
        goal = self._atol + self._rtol * scale
        self._goes_on[rows] = gap > goal
        if not self._goes_on.any():
            return 0
        return np.max(k * np.log(goal / gap) / np.log(gap / norm), initial=0)
