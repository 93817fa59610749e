"""GMRES for affine maps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.errors import SolverError
from deqzoo.solution import Solution
from deqzoo.solvers.base import AffineMap, Counted, FixedPointSolver, Map
from deqzoo.solvers.progress import start_progress
from deqzoo.solvers.rows import add_combination, into, overlaps, row_dots, row_norms, work_dtype


@dataclass(frozen=True, kw_only=True)
class GMRES(FixedPointSolver):
    """Minimal residuals for affine maps u ↦ J u + b: the residual of each iterate is the least that the products with
    J so far allow, until the memory is full; then the oldest direction is dropped.

    Runs in the "adaptive simpler" form (Jiránek & Rozložník 2010, "Adaptive version of simpler GMRES"): images of the
    directions under I − J are kept orthonormal, so that the true residual is at hand in every step, samples stop on
    their own, and no small system is solved. The next direction is the residual while it shrinks, else the last image.

    Attributes:
        memory: directions kept; two histories of so many states.

    """

    memory: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"GMRES got memory={self.memory}. It keeps at least one direction: use 8 to 30.")

    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None) -> Solution[Tensor]:
        """Raises a `SolverError` for maps that are not an `AffineMap`."""
        if not isinstance(f, AffineMap):
            raise SolverError(
                "GMRES solves linear equations, such as those of a backward pass, and met a general map. "
                "Use it inside Implicit(solver=GMRES()); for the forward solve take NewtonKrylov()."
            )
        linear = Counted(f.linear)
        products, known = self.max_steps, fz0 is not None
        if fz0 is None:
            fz0, products = linear(z0) + f.offset, products - 1
        progress = start_progress(self, z0)
        batch, size = z0.shape
        rows, dtype = min(self.memory, self.max_steps), work_dtype(z0.dtype)
        directions = z0.new_empty(batch, rows, size, dtype=dtype)
        images = torch.empty_like(directions)
        u, r = z0.to(dtype), (fz0 - z0).to(dtype)
        before, direction = row_norms(r)[:, None], r
        for step in range(products + 1):
            candidate = step > 0 or not known
            if candidate and progress.observe(u.to(z0.dtype), u + r, r, step + 1, linear.num_evals):
                break
            if step == products:
                break
            slot, kept = step % rows, min(step, rows)
            p = direction
            q = p - linear(p.to(z0.dtype)).to(dtype)
            image = row_norms(q)[:, None]
            for _ in range(self._passes(dtype) if kept else 0):
                overlap = overlaps(images[:, :kept], q)
                q = add_combination(q, overlap, images[:, :kept], alpha=-1)
                p = add_combination(p, overlap, directions[:, :kept], alpha=-1)
            norm = row_norms(q)[:, None]
            # A direction whose image lies in the span of the others brings nothing but rounding errors.
            inverse = torch.where(norm > 1e3 * torch.finfo(dtype).eps * image, 1 / norm, 0)
            p = into(directions[:, slot], torch.mul, p, inverse)
            q = into(images[:, slot], torch.mul, q, inverse)
            gain = row_dots(q, r)
            u = torch.addcmul(u, gain, p)
            r = torch.addcmul(r, gain, q, value=-1)
            after = row_norms(r)[:, None]
            # A residual that shrank is a new direction; one that did not would repeat the old.
            direction = torch.where(after < 0.9 * before, r, q)
            before = after
        return Solution(value=progress.value(), stats=progress.stats(linear.num_evals))

    def _passes(self, dtype: torch.dtype) -> int:
        """Returns how often an image is freed of its parts along the others.

        Rounding errors of the first pass cost optimality alone, as u and r stay consistent: a second pays where the
        tolerance is near the precision.
        """
        return 1 if self.rtol > 300 * torch.finfo(dtype).eps else 2
