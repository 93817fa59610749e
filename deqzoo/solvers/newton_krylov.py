"""Newton's method with Krylov solves."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from deqzoo.errors import SolverError
from deqzoo.solvers.base import AffineMap, Counted, IterativeSolver
from deqzoo.solvers.gmres import GMRES


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(IterativeSolver[None]):
    """Inexact Newton: z ← z + d with (I − J) d = f(z) − z solved by GMRES on Jacobian-vector products
    (Knoll & Keyes 2004, "Jacobian-free Newton–Krylov methods").

    Products are forward-mode derivatives, exact and without a graph; each counts as one evaluation.

    Attributes:
        forcing: the relative tolerance of the linear solves.
        inner_steps: the most products per step, and directions kept.

    """

    max_steps: int = 15
    forcing: float = 0.05
    inner_steps: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.forcing < 1:
            raise ValueError(f"NewtonKrylov got forcing={self.forcing}. It must lie in (0, 1): 0.05 is a usual choice.")
        if self.inner_steps < 1:
            raise ValueError(f"NewtonKrylov got inner_steps={self.inner_steps}. Use at least 1, better 8 to 30.")

    def init(self, z0: Tensor) -> None:
        return None

    def step(self, f: Counted, z: Tensor, fz: Tensor, g: Tensor, state: None) -> tuple[Tensor, None]:
        def product(direction: Tensor) -> Tensor:
            try:
                # Fused attention kernels have no forward-mode derivative.
                with sdpa_kernel(SDPBackend.MATH):
                    return torch.func.jvp(f, (z,), (direction,))[1]
            except (NotImplementedError, RuntimeError) as error:
                raise SolverError(
                    f"NewtonKrylov could not differentiate f in forward mode: {error} "
                    "Use Anderson() or Broyden(), which need values of f alone."
                ) from error

        forcing = 0 if self.fixed_budget else self.forcing
        inner = GMRES(rtol=forcing, max_steps=self.inner_steps, memory=self.inner_steps)
        step = inner.solve(AffineMap(product, g), torch.zeros_like(z), g).value
        return z + step, None
