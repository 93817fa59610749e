"""Anderson acceleration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.solvers.base import Counted, IterativeSolver
from deqzoo.solvers.rows import combination, into, overlaps, work_dtype


@dataclass
class History:
    """The last m evaluations as ring buffers, written in place.

    Attributes:
        values: (B, m, N) f(z).
        gaps: (B, m, N) f(z) − z.
        gram: (B, m, m) inner products of the gaps, with the ridge on the diagonal.
        ones: (B, m, 1) the right-hand side of the small systems.
        plain: (m, m) the weights that choose one evaluation alone.
        length: evaluations seen.

    """

    values: Tensor
    gaps: Tensor
    gram: Tensor
    ones: Tensor
    plain: Tensor
    length: int = 0

    @property
    def slot(self) -> int:
        """Where the next evaluation goes."""
        return self.length % self.gaps.shape[1]


@dataclass(frozen=True, kw_only=True)
class Anderson(IterativeSolver[History]):
    """Anderson acceleration: z ← Σ αᵢ (f(zᵢ) − (1 − β) gᵢ), the affine combination of the last m evaluations whose
    residual ‖Σ αᵢ gᵢ‖, Σ αᵢ = 1, is least (Walker & Ni 2011, "Anderson acceleration for fixed-point iterations").

    With a period p, every p-th step is such a one and those between are plain, which saves their combinations and small
    systems and often takes hardly more evaluations (Pratapa, Suryanarayana & Pask 2016, "Anderson acceleration of the
    Jacobi iterative method").

    Only the new row of the Gram matrix is computed. Its ridge is relative to each sample's residuals, so that
    neither the speed nor the result depends on the units of z.

    Attributes:
        memory: m, the evaluations to combine.
        damping: β in (0, 1], the step along the combined residual.
        ridge: of the Gram matrix scaled to unit diagonal, in multiples of the working precision.
        period: p, the steps from one combination to the next.

    """

    memory: int = 6
    damping: float = 1.0
    ridge: float = 10.0
    period: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"Anderson got memory={self.memory}. It combines at least one evaluation: use 2 to 10.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Anderson got damping={self.damping}. It must lie in (0, 1]: 1 is the usual choice.")
        if self.ridge <= 0:
            raise ValueError(f"Anderson got ridge={self.ridge}. It must be positive to survive singular systems.")
        if self.period < 1:
            raise ValueError(f"Anderson got period={self.period}. It is a number of steps: 1 combines in all of them.")

    def init(self, z0: Tensor) -> History:
        batch, size = z0.shape
        dtype = work_dtype(z0.dtype)
        # Squares of residuals that span many orders of magnitude. Apple's GPUs have no float64.
        small = dtype if z0.device.type == "mps" else torch.float64
        rows = min(self.memory, self.max_steps)
        return History(
            values=z0.new_empty(batch, rows, size, dtype=dtype),
            gaps=z0.new_empty(batch, rows, size, dtype=dtype),
            gram=z0.new_empty(batch, rows, rows, dtype=small),
            ones=z0.new_ones(batch, rows, 1, dtype=small),
            plain=torch.eye(rows, dtype=small, device=z0.device),
        )

    def gap(self, z: Tensor, fz: Tensor, state: History) -> Tensor:
        return into(state.gaps[:, state.slot], torch.sub, fz, z)

    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: History) -> tuple[Tensor, History]:
        slot = state.slot
        state.length += 1
        n = min(state.length, state.gaps.shape[1])
        state.values[:, slot] = fz
        gaps, values = state.gaps[:, :n], state.values[:, :n]
        row = overlaps(gaps, g)
        state.gram[:, slot, :n] = row
        state.gram[:, :n, slot] = row
        # Relative to each residual: those of a converging solve span many orders of magnitude.
        state.gram[:, slot, slot] *= 1 + self.ridge * torch.finfo(row.dtype).eps
        if n == 1 or state.length % self.period:
            return (fz if self.damping == 1 else torch.add(z, g, alpha=self.damping)), state
        # The least residual of weights that sum to one: Gram α ∝ 1.
        solved = torch.linalg.solve_ex(state.gram[:, :n, :n], state.ones[:, :n])[0]
        alpha = (solved / solved.sum(dim=1, keepdim=True))[:, :, 0]
        # A sample whose small system broke down takes a plain step; comparisons with NaN are false.
        sound = torch.linalg.vector_norm(alpha, dim=1, keepdim=True) < 1e12
        alpha = torch.where(sound, alpha, state.plain[slot, :n]).to(row.dtype)
        z_next = combination(alpha, values)
        if self.damping != 1:
            z_next -= (1 - self.damping) * combination(alpha, gaps)
        return z_next.to(z.dtype), state
