"""z = f(z): joins states, solvers and adjoints."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.adjoints.autocast import current_autocast
from deqzoo.adjoints.base import Problem
from deqzoo.errors import StructureError
from deqzoo.solution import Policy, Solution, enforce
from deqzoo.solvers import Anderson, FixedPointSolver
from deqzoo.tree import Layout, State

Z = TypeVar("Z", bound=State)
F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Returns `function`, hidden from `torch.compile`; what it calls may be compiled by itself."""
    return torch.compiler.disable(function)  # pyright: ignore[reportReturnType]


@eager
def fixed_point(
    f: Callable[..., Z],
    z0: Z,
    *args: Any,
    solver: FixedPointSolver = Anderson(),
    adjoint: Adjoint = Implicit(),
    unconverged: Policy = "warn",
) -> Solution[Z]:
    """Solves z = f(z, *args) for every sample of a batch on its own.

    A sample's result does not depend on the others in its batch, as long as `f` does not mix them. The value is each
    sample's best iterate; `stats.residual` is the residual of just that. Whatever needs a gradient should come
    through `args` or be a parameter that `f` uses.

    Args:
        f: maps a state, and `args`, to a state of the same structure and shapes.
        z0: where to start: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to `f`; tensors and nests of tuples of them may require gradients.
        solver: how to find the solution.
        adjoint: how gradients get back.
        unconverged: what to do about samples that miss the tolerance. Fixed budgets have none to miss.

    Raises:
        StructureError: if z0 is no state, or `f` changes its structure or shapes.
        SolverError: under unconverged="raise", if a sample misses its tolerance.
        AdjointError: if solver and adjoint do not go together.

    """
    if unconverged not in ("ignore", "warn", "raise"):
        raise ValueError(f'unconverged={unconverged!r} is no policy. Choose "ignore", "warn" or "raise".')
    layout = Layout(z0)
    leaves, rebuild = _split(args)
    autocast = current_autocast(layout.device)
    checked = False

    def flat(z: Tensor, *tensors: Tensor) -> Tensor:
        nonlocal checked
        if checked:
            return layout.ravel(evaluate(z, tensors))
        version = None if z.is_inference() else z._version
        value = evaluate(z, tensors)
        if version is not None and z._version != version:
            raise StructureError(
                "`f` wrote into the state that it was given. A state is needed again after f(z), to compare: look for "
                "in-place operations such as `mul_` or `ReLU(inplace=True)` at the beginning of the cell."
            )
        layout.check(value)
        checked = True
        return layout.ravel(value)

    def evaluate(z: Tensor, tensors: tuple[Tensor, ...]) -> Z:
        if autocast is None:
            return f(layout.unravel(z), *rebuild(tensors))
        # Whenever it is evaluated, in a backward pass too, f runs under the autocast of this call.
        with autocast:
            return f(layout.unravel(z), *rebuild(tensors))

    problem = Problem(f=flat, z0=layout.ravel(z0), args=leaves, unconverged=unconverged)
    found = adjoint.solve(problem, solver)
    if not solver.fixed_budget:
        enforce(found.stats, unconverged, "The forward solve")
    # Without a graph the value may still share memory with z0, or with what f returned.
    value = layout.unravel(found.value if found.value.requires_grad else found.value.clone())
    return Solution(value=value, stats=found.stats, backward_log=found.backward_log)  # pyright: ignore[reportReturnType]


def _split(args: Any) -> tuple[tuple[Tensor, ...], Callable[[tuple[Tensor, ...]], Any]]:
    """Returns the tensors in nested tuples `args`, and a function that puts others in their places."""
    if isinstance(args, Tensor):
        return (args,), lambda tensors: tensors[0]
    if not isinstance(args, tuple):
        return (), lambda tensors: args
    parts = [_split(part) for part in args]
    sizes = [len(leaves) for leaves, _ in parts]
    if not any(sizes):
        return (), lambda tensors: args

    def rebuild(tensors: tuple[Tensor, ...]) -> Any:
        built, start = [], 0
        for size, (_, rebuild_part) in zip(sizes, parts, strict=True):
            built.append(rebuild_part(tensors[start : start + size]))
            start += size
        return type(args)(*built) if hasattr(args, "_fields") else tuple(built)  # a NamedTuple stays one

    return tuple(leaf for leaves, _ in parts for leaf in leaves), rebuild
