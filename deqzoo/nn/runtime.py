"""Changing how a network solves, after it was made or loaded."""

import dataclasses

from torch import nn

from deqzoo.adjoints import Adjoint
from deqzoo.nn.implicit_module import equilibria
from deqzoo.solvers import FixedPointSolver


def set_runtime(
    net: nn.Module,
    *,
    solver: FixedPointSolver | None = None,
    adjoint: Adjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
) -> None:
    """Reassigns solver, adjoint or budget of every equilibrium in `net`. What is None stays.

    Raises:
        ValueError: if something is to change and `net` has no equilibrium.

    """
    found = equilibria(net)
    changes = {k: v for k, v in {"max_steps": max_steps, "rtol": rtol}.items() if v is not None}
    if not found and (solver or adjoint or changes):
        raise ValueError(f"{type(net).__name__} has no equilibrium to solve: leave solver, adjoint and budget unset.")
    for module in found.values():
        module.solver = dataclasses.replace(solver or module.solver, **changes)
        module.adjoint = adjoint or module.adjoint
