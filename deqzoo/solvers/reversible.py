"""The reversible coupled scheme."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.errors import SolverError
from deqzoo.solution import Solution
from deqzoo.solvers.base import Counted, FixedPointSolver, Map
from deqzoo.solvers.progress import start_progress

_ROUNDINGS = 8
"""Spacings of numbers that half a step, and evaluations of f at neighbours, may be off by, relative to the norms."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What is needed to run a reversible solve backwards. All matrices are float64.

    Attributes:
        z: (B, N) each sample's best iterate.
        y: (B, N) its companion in the same step.
        num_steps: (B,) the steps that led there.
        checkpoints: (z, y) before step 0, k, 2k, … with k the solver's `segment`, if they were asked for.
        dtype: that f computed in.

    """

    z: Tensor
    y: Tensor
    num_steps: Tensor
    checkpoints: list[tuple[Tensor, Tensor]]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Undone:
    """The pair before some steps of a reversible solve, reconstructed. All are float64.

    Attributes:
        z: (B, N).
        y: (B, N) its companion.
        error: (B,) a bound on how far each of the two is from what it was, as a norm.

    """

    z: Tensor
    y: Tensor
    error: Tensor


@dataclass(frozen=True, kw_only=True)
class Reversible(FixedPointSolver):
    """Two coupled damped iterations (McCallum et al. 2025, arXiv 2509.12917)::

        y ← (1 − β) y + β f(z),    z ← (1 − β) z + β f(y)

    Each step can be undone, so that the `Reversible` adjoint needs no memory for it; two evaluations of f per step.
    The state is kept in float64 while f computes in the dtype of z: undoing a step multiplies rounding errors by
    1 / (1 − β)².

    Attributes:
        damping: β in (0, 1).

    """

    max_steps: int = 30
    damping: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < 1:
            raise ValueError(
                f"Reversible got damping={self.damping}. It must lie strictly between 0 and 1, or no step could be "
                "undone: 0.5 to 0.8 is usual."
            )

    @property
    def segment(self) -> int:
        """Steps that can be undone before errors have grown by a factor of a million: between two checkpoints."""
        return max(1, math.floor(6 * math.log(10) / (-2 * math.log1p(-self.damping))))

    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None, *, record: bool = False) -> Solution[Tensor]:
        """Returns each row's best iterate, with its `Trajectory` as state; checkpoints are kept if `record`."""
        counted = Counted(f)
        z = y = z0.double()
        progress = start_progress(self, torch.cat((z, y), dim=1))
        checkpoints = []
        for step in range(self.max_steps + 1):
            here = z.to(z0.dtype)
            fz = counted(here) if step or fz0 is None else fz0
            # The pair is kept, the residual is that of z.
            judged = counted.judged(here, fz, fz - here)
            done = progress.observe(torch.cat((z, y), dim=1), *judged, step + 1, counted.num_evals)
            if done or step == self.max_steps:
                break
            if record and step % self.segment == 0:
                checkpoints.append((z, y))
            y = torch.lerp(y, fz.double(), self.damping)
            z = torch.lerp(z, counted(y.to(z0.dtype)).double(), self.damping)
        stats = progress.stats(counted.num_evals)
        z, y = progress.value().tensor_split(2, dim=1)
        # The residual of the iterate after n steps is known at evaluation 2 n + 1.
        num_steps = (stats.num_steps - int(fz0 is None)) // 2
        trajectory = Trajectory(z=z, y=y, num_steps=num_steps, checkpoints=checkpoints, dtype=z0.dtype)
        return Solution(value=z.to(z0.dtype).contiguous(), stats=stats, state=trajectory)

    @torch.no_grad()
    def undo(
        self,
        f: Map,
        trajectory: Trajectory,
        num_steps: int | None = None,
        *,
        lipschitz: float = 1.0,
        rtol: float = 0.1,
    ) -> Undone:
        """Returns the pair of each row before its last `num_steps` steps, with a bound on its error.

        The bound supposes the worst at every step; errors are usually thousands of times smaller. They are not those of
        float64 alone: once a number is rounded to another neighbour for f than it was on the way, f's own rounding
        comes in. Where the trajectory has a checkpoint the pair is that, without an error. A row that took fewer steps
        is taken back to its start.

        Args:
            f: the map that was solved for; the same values from the same z, bit for bit.
            trajectory: the `state` of the solution.
            num_steps: to undo; None for all.
            lipschitz: how much f stretches differences at most, by which errors of z become errors of f(z).
            rtol: the largest error that is accepted, relative to the norm of the pair that is started from.

        Raises:
            ValueError: if `num_steps` is negative.
            SolverError: if the error may be larger than that: more steps than the precision of the state allows.

        """
        if num_steps is not None and num_steps < 0:
            raise ValueError(f"Got num_steps={num_steps}. Steps are undone, 0 for none: use a positive number.")
        z, y, taken = trajectory.z, trajectory.y, trajectory.num_steps
        most = int(taken.max()) if len(taken) else 0
        goal = (taken - (most if num_steps is None else num_steps)).clamp_min(0)
        size = torch.linalg.vector_norm(torch.cat((z, y), dim=1), dim=1)
        back = _Back(f, self.damping, trajectory.dtype, lipschitz)
        ez = ey = torch.zeros_like(size)
        for step in range(most, 0, -1):
            rows = (taken >= step) & (step > goal)
            kept, offset = divmod(step - 1, self.segment)
            if offset == 0 and kept < len(trajectory.checkpoints):
                (before_z, before_y), after_ez, after_ey = trajectory.checkpoints[kept], ez * 0, ey * 0
            else:
                before_z, after_ez = back(z, ez, y, ey)
                before_y, after_ey = back(y, ey, before_z, after_ez)
            z, y = torch.where(rows[:, None], before_z, z), torch.where(rows[:, None], before_y, y)
            ez, ey = torch.where(rows, after_ez, ez), torch.where(rows, after_ey, ey)
            error = torch.maximum(ez, ey)
            # Not >, which NaN would pass.
            lost = rows & ~(error <= rtol * size)
            if lost.any():
                raise self._refusal(float((error / size)[lost].max()), int(lost.sum()), (taken - step)[lost], rtol)
        return Undone(z=z, y=y, error=torch.maximum(ez, ey))

    def _refusal(self, error: float, num_lost: int, undone: Tensor, rtol: float) -> SolverError:
        fewest = int(undone.min())
        return SolverError(
            f"Undoing {fewest + 1} steps may leave {num_lost} samples wrong by {error:.1e} of their size, and "
            f"{rtol:g} is accepted. With damping={self.damping:g} each step back multiplies errors by "
            f"{(1 - self.damping) ** -2:.3g} or more, those of rounding to begin with: undo at most {fewest} steps, "
            "solve with record=True, which keeps checkpoints, or choose a smaller damping."
        )


class _Back:
    """Undoes half a step: x ↦ (x − β f(w)) / (1 − β), with bounds on the errors of x and w and of what comes of them.

    Args:
        f: the map, which computes in `dtype`.
        damping: β.
        dtype: of f.
        lipschitz: of f.

    """

    def __init__(self, f: Map, damping: float, dtype: torch.dtype, lipschitz: float) -> None:
        self._f, self._beta, self._dtype, self._lipschitz = f, damping, dtype, lipschitz

    def __call__(self, x: Tensor, x_error: Tensor, w: Tensor, w_error: Tensor) -> tuple[Tensor, Tensor]:
        beta, eps = self._beta, torch.finfo(self._dtype).eps
        fw = self._f(w.to(self._dtype)).double()
        before = (x - beta * fw) / (1 - beta)
        # Whatever is rounded to the very number that f saw on the way leads to the very value that it had.
        doubtful = (w - w_error[:, None]).to(self._dtype) != (w + w_error[:, None]).to(self._dtype)
        norm = torch.linalg.vector_norm
        moved = w_error + eps * norm(w * doubtful, dim=1)
        f_error = self._lipschitz * moved + _ROUNDINGS * eps * norm(fw, dim=1)
        f_error = torch.where(doubtful.any(1), f_error, 0)
        rounding = _ROUNDINGS * torch.finfo(torch.float64).eps * (norm(before, dim=1) + norm(fw, dim=1))
        return before, (x_error + beta * f_error + rounding) / (1 - beta)
