"""The reversible coupled scheme."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.solution import Solution
from deqzoo.solvers.base import Counted, FixedPointSolver, Map
from deqzoo.solvers.progress import start_progress


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What is needed to run a reversible solve backwards. All matrices are float64.

    Attributes:
        z: (B, N) each sample's best iterate.
        y: (B, N) its companion in the same step.
        num_steps: (B,) the steps that led there.
        checkpoints: (z, y) before step 0, k, 2k, … with k the solver's `segment`, if they were asked for.

    """

    z: Tensor
    y: Tensor
    num_steps: Tensor
    checkpoints: list[tuple[Tensor, Tensor]]


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
        """Steps that can be undone before six of float64's sixteen digits are lost."""
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
        trajectory = Trajectory(z=z, y=y, num_steps=(stats.num_steps - int(fz0 is None)) // 2, checkpoints=checkpoints)
        return Solution(value=z.to(z0.dtype).contiguous(), stats=stats, state=trajectory)
