"""Limited-memory Broyden."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.solvers.base import Counted, IterativeSolver
from deqzoo.solvers.rows import add_combination, into, overlaps, row_dots, work_dtype


@dataclass
class Inverse:
    """An estimate K of (I − J)⁻¹, with J the Jacobian of f: the identity plus rank-one terms.

    Attributes:
        u: (B, m, N) the left factors in K = I + Σ uᵢ vᵢᵀ.
        v: (B, m, N) the right factors.
        length: terms there are.
        last_step: (B, N) K g as it was last taken, None before the first step.

    """

    u: Tensor
    v: Tensor
    length: int = 0
    last_step: Tensor | None = None

    def times(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, N): K x."""
        return self._low_rank(self.u, self.v, x)

    def transposed_times(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, N): Kᵀ x."""
        return self._low_rank(self.v, self.u, x)

    def solve_transposed(self, v: Tensor) -> Tensor:
        """(B, N) -> (B, N): Kᵀ v, the estimate of (I − Jᵀ)⁻¹ v."""
        return self.transposed_times(v.to(self.u.dtype)).to(v.dtype)

    def _low_rank(self, left: Tensor, right: Tensor, x: Tensor) -> Tensor:
        if self.length == 0:
            return x
        return add_combination(x, overlaps(right[:, : self.length], x), left[:, : self.length])


@dataclass(frozen=True, kw_only=True)
class Broyden(IterativeSolver[Inverse]):
    """Broyden's good method on g(z) = f(z) − z, from the step g, by rank-one updates
    (Broyden 1965, "A class of methods for solving nonlinear simultaneous equations").

    Attributes:
        memory: m, the updates after which it starts again from K = I: dropping single terms would stall it. Two
            histories of m states are kept.

    """

    memory: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"Broyden got memory={self.memory}. It keeps at least one update: use 8 to 30.")

    def init(self, z0: Tensor) -> Inverse:
        batch, size = z0.shape
        u = z0.new_empty(batch, min(self.memory, self.max_steps), size, dtype=work_dtype(z0.dtype))
        return Inverse(u=u, v=torch.empty_like(u))

    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: Inverse) -> tuple[Tensor, Inverse]:
        g = g.to(state.u.dtype)
        if state.length == state.u.shape[1]:
            state.length, state.last_step = 0, None
        step = g if state.last_step is None else self._update(state, g)
        state.last_step = step
        return (z + step).to(z.dtype), state

    def _update(self, state: Inverse, g: Tensor) -> Tensor:
        """Adds the rank-one term that the last step taught and returns the next step, K g."""
        s, slot = state.last_step, state.length
        assert s is not None
        step, v = state.times(g), state.transposed_times(s)
        # The last step was K times the last gap, so that K maps the change of the gap to s − step, in place of s.
        learned = row_dots(s, step)
        curvature = row_dots(s, s) - learned
        # A sample whose step taught nothing keeps its estimate.
        weight = torch.where(curvature.abs() > torch.finfo(g.dtype).tiny, 1 / curvature, 0)
        into(state.u[:, slot], torch.mul, step, weight)
        state.v[:, slot] = v
        state.length += 1
        # vᵀ g = sᵀ K g, already at hand, and u is a multiple of K g.
        return step * (1 + weight * learned)
