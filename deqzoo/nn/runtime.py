"""Changing how a network solves, after it was made or loaded."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from deqzoo.nn.solving_module import AnyAdjoint, AnySolver, equilibria


def set_runtime(
    net: nn.Module,
    *,
    solver: AnySolver | None = None,
    adjoint: AnyAdjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
) -> None:
    """Reassigns solver, adjoint or budget of every equilibrium or ODE in `net`. What is None stays.

    Raises:
        ValueError: if something is to change and `net` has no equilibrium, or its solver has no such budget.
        SolverError: if `solver` solves another kind of equation.
        AdjointError: if `adjoint` is for another kind of equation.

    """
    found = equilibria(net)
    changes = {k: v for k, v in {"max_steps": max_steps, "rtol": rtol}.items() if v is not None}
    if not found and (solver or adjoint or changes):
        raise ValueError(f"{type(net).__name__} has no equilibrium to solve: leave solver, adjoint and budget unset.")
    # All or nothing: what does not fit is found before anything changes.
    new = []
    for module in found.values():
        module.check_runtime(solver or module.solver, adjoint or module.adjoint)
        new.append((module, _budgeted(solver or module.solver, changes), adjoint or module.adjoint))
    for module, new_solver, new_adjoint in new:
        module.solver, module.adjoint = new_solver, new_adjoint


@contextmanager
def runtime_kept(net: nn.Module) -> Iterator[None]:
    """A context after which every equilibrium or ODE in `net` solves as it did before, however the context ends."""
    kept = [(module, module.solver, module.adjoint) for module in equilibria(net).values()]
    try:
        yield
    finally:
        for module, solver, adjoint in kept:
            module.solver, module.adjoint = solver, adjoint


def _budgeted(solver: AnySolver, changes: dict[str, float]) -> AnySolver:
    missing = changes.keys() - {field.name for field in dataclasses.fields(solver)}
    if missing:
        raise ValueError(
            f"{solver} has no {' and no '.join(sorted(missing))}: it spends what it was made with. Choose another "
            f"solver, such as deqzoo.ode.DormandPrince(rtol=1e-4), or another {type(solver).__name__}."
        )
    return dataclasses.replace(solver, **changes)
