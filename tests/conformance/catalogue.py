"""Everything that is exported, found by looking: a new solver or adjoint is met without being listed."""

import dataclasses
import inspect
from types import ModuleType

import pytest
import torch

from deqzoo import adjoints, solvers
from deqzoo.adjoints import Adjoint
from deqzoo.solvers import FixedPointSolver


def concrete(module: ModuleType, base: type) -> list[type]:
    """Returns the classes that `module` exports, derive from `base` and can be made."""
    exported = [getattr(module, name) for name in module.__all__]
    return [c for c in exported if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)]


def tuned(solver: FixedPointSolver, **changes: object) -> FixedPointSolver:
    """Returns `solver` with other hyperparameters."""
    return dataclasses.replace(solver, **changes)


def exact(solver: FixedPointSolver, rtol: float = 1e-11) -> FixedPointSolver:
    """Returns `solver` with a tolerance near the limits of float64 and steps to spare."""
    return tuned(solver, rtol=rtol, max_steps=300)


LINEAR = [solvers.GMRES()]
"""Solvers of affine maps alone."""

SOLVERS = [c() for c in concrete(solvers, FixedPointSolver) if c not in {type(s) for s in LINEAR}]
SOLVERS.append(solvers.Anderson(period=3))
ADJOINTS = [c() for c in concrete(adjoints, Adjoint)]


def go_together(adjoint: Adjoint, solver: FixedPointSolver) -> bool:
    """Whether `adjoint` can differentiate what `solver` does."""
    if isinstance(adjoint, adjoints.Reversible):
        return isinstance(solver, solvers.Reversible)
    return not isinstance(adjoint, adjoints.Unrolled) or isinstance(solver, solvers.Picard)


def _name(value: object) -> str:
    return type(value).__name__


def _pair(pair: tuple[FixedPointSolver, Adjoint]) -> str:
    return "-".join(map(_name, pair))


_PRODUCT = [(s, a) for s in SOLVERS for a in ADJOINTS]
PAIRS = [(s, a) for s, a in _PRODUCT if go_together(a, s)]

every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=_name)
every_linear_solver = pytest.mark.parametrize("solver", SOLVERS + LINEAR, ids=_name)
every_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS, ids=_name)
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=_pair)
every_refused_pair = pytest.mark.parametrize("pair", [p for p in _PRODUCT if p not in PAIRS], ids=_pair)
every_value = pytest.mark.parametrize(
    "value", SOLVERS + LINEAR + ADJOINTS, ids=lambda v: f"{type(v).__module__}.{_name(v)}"
)
both_halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
