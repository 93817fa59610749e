"""Damped fixed-point iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.solvers.base import Counted, IterativeSolver


@dataclass(frozen=True, kw_only=True)
class Picard(IterativeSolver[None]):
    """Damped fixed-point iteration, z ← z + β (f(z) − z).

    Converges when f contracts; for positive concave maps from any nonnegative start.

    Attributes:
        damping: β in (0, 1].

    """

    damping: float = 1.0

    differentiable = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping <= 1:
            raise ValueError(f"Picard got damping={self.damping}. It must lie in (0, 1]: 1 is plain iteration.")

    def init(self, z0: Tensor) -> None:
        return None

    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: None) -> tuple[Tensor, None]:
        return (fz if self.damping == 1 else torch.add(z, g, alpha=self.damping)), None
