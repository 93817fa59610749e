"""Anderson acceleration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.solvers.base import Counted, IterativeSolver
from deqzoo.solvers.rows import combination, overlaps, work_dtype


@dataclass
class History:
    """The last m evaluations as ring buffers, written in place.

    Attributes:
        values: (B, m, N) f(z).
        gaps: (B, m, N) f(z) − z.
        gram: (B, m, m) inner products of the gaps.
        length: evaluations seen.

    """

    values: Tensor
    gaps: Tensor
    gram: Tensor
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class Anderson(IterativeSolver[History]):
    """Anderson acceleration: z ← Σ αᵢ (f(zᵢ) − (1 − β) gᵢ), the affine combination of the last m evaluations whose
    residual ‖Σ αᵢ gᵢ‖, Σ αᵢ = 1, is least (Walker & Ni 2011, "Anderson acceleration for fixed-point iterations").

    Only the new row of the Gram matrix is computed. Its ridge is relative to each sample's residuals, so that
    neither the speed nor the result depends on the units of z.

    Attributes:
        memory: m, the evaluations to combine.
        damping: β in (0, 1], the step along the combined residual.
        ridge: of the Gram matrix scaled to unit diagonal, in multiples of the working precision.

    """

    memory: int = 6
    damping: float = 1.0
    ridge: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"Anderson got memory={self.memory}. It combines at least one evaluation: use 2 to 10.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Anderson got damping={self.damping}. It must lie in (0, 1]: 1 is the usual choice.")
        if self.ridge <= 0:
            raise ValueError(f"Anderson got ridge={self.ridge}. It must be positive to survive singular systems.")

    def init(self, z0: Tensor) -> History:
        batch, size = z0.shape
        dtype = work_dtype(z0.dtype)
        rows = min(self.memory, self.max_steps)
        return History(
            values=z0.new_empty(batch, rows, size, dtype=dtype),
            gaps=z0.new_empty(batch, rows, size, dtype=dtype),
            gram=z0.new_empty(batch, rows, rows, dtype=dtype),
        )

    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: History) -> tuple[Tensor, History]:
        slot = state.length % state.gaps.shape[1]
        state.length += 1
        n = min(state.length, state.gaps.shape[1])
        state.values[:, slot] = fz
        state.gaps[:, slot] = g
        gaps, values = state.gaps[:, :n], state.values[:, :n]
        row = overlaps(gaps, state.gaps[:, slot])
        state.gram[:, slot, :n] = row
        state.gram[:, :n, slot] = row
        if n == 1:
            return (fz if self.damping == 1 else torch.add(z, g, alpha=self.damping)), state
        alpha = self._weights(state.gram[:, :n, :n], slot)
        z_next = combination(alpha, values)
        if self.damping != 1:
            z_next -= (1 - self.damping) * combination(alpha, gaps)
        return z_next.to(z.dtype), state

    def _weights(self, gram: Tensor, newest: int) -> Tensor:
        """(B, n, n) Gram matrices -> (B, n) the weights of least residual, summing to one."""
        info = torch.finfo(gram.dtype)
        squares = gram.diagonal(dim1=1, dim2=2).clamp_min(info.tiny)
        # Unit diagonal: residuals of a converging solve span many orders of magnitude.
        scale = (squares.amin(dim=1, keepdim=True) / squares).sqrt()
        unit = squares.rsqrt()
        system = gram * unit[:, :, None] * unit[:, None, :]
        system.diagonal(dim1=1, dim2=2).add_(self.ridge * info.eps)
        # Dense, as sums depend on strides and those on B.
        solved = torch.linalg.solve_ex(system, scale)[0].contiguous() * scale
        alpha = solved / solved.sum(dim=1, keepdim=True)
        # A sample whose small system broke down takes a plain step.
        plain = torch.zeros_like(alpha[:1])
        plain[:, newest] = 1
        return torch.where(alpha.isfinite().all(dim=1, keepdim=True), alpha, plain)
