"""z = f(z): joins states, solvers and adjoints."""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from deqzoo.adjoints import Adjoint, Implicit
from deqzoo.adjoints.base import Problem
from deqzoo.matrix_map import MatrixMap, eager
from deqzoo.solution import Policy, Solution, check_policy, enforce
from deqzoo.solvers import Anderson, FixedPointSolver
from deqzoo.tree import Layout, State

Z = TypeVar("Z", bound=State)
_Judge: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Iteration(abc.ABC):
    """Another map than f, from whose fixed points those of f can be read, and that is easier to iterate.

    Operator splittings are such: y = g(y) is solved in place of z = f(z), and z is read off y. Gradients pass g too, so
    that a backward solve converges as fast as the forward one. Whatever `prepare` computes, it computes once per solve.

    Attributes:
        tightening: what the tolerances of backward solves are multiplied by, for an iteration of small steps.

    """

    tightening: float = 1.0

    def prepare(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Returns what g and the others get, computed from f's arguments."""
        return args

    def start(self, z0: Any, /, *prepared: Any, **kwargs: Any) -> Any:
        """Returns where to start the iteration for a start z0 of f."""
        return z0

    @abc.abstractmethod
    def __call__(self, y: Any, /, *prepared: Any, **kwargs: Any) -> Any:
        """Returns g(y), a state of the structure of y."""

    def read(self, y: Any, /, *prepared: Any, **kwargs: Any) -> Any:
        """Returns the state z of f that y stands for: a fixed point of f for a fixed point of g."""
        return y

    def image(self, y: Any, gy: Any, /, *prepared: Any, **kwargs: Any) -> Any | None:
        """Returns f(z), for the z that y stands for, where g(y) tells it; None where f has to be evaluated."""
        return None


def fixed_point(
    f: Callable[..., Z],
    z0: Z,
    *args: Any,
    solver: FixedPointSolver = Anderson(),
    adjoint: Adjoint = Implicit(),
    iterate: Iteration | None = None,
    unconverged: Policy = "warn",
) -> Solution[Z]:
    """Solves z = f(z, *args) for every sample of a batch on its own.

    A sample's result does not depend on the others in its batch, as long as `f` does not mix them. The value is each
    sample's best iterate; `stats.residual` is the residual of just that. Whatever needs a gradient should come
    through `args` or be a parameter that `f` uses.

    `torch.compile` takes a fixed budget (rtol = atol = 0) into its graph as a whole, evaluation by evaluation, where no
    gradient is wanted or the adjoint's can be traced. Other solves decide on the host: they stay out of graphs.

    Args:
        f: maps a state, and `args`, to a state of the same structure and shapes.
        z0: where to start: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to `f`; tensors and nests of tuples of them may require gradients.
        solver: how to find the solution.
        adjoint: how gradients get back.
        iterate: what to iterate in place of `f`. Tolerances, residuals and statuses remain those of `f`.
        unconverged: what to do about samples that miss the tolerance. Fixed budgets have none to miss.

    Raises:
        StructureError: if z0 is no state, or `f` changes its structure or shapes.
        SolverError: under unconverged="raise", if a sample misses its tolerance.
        AdjointError: if solver and adjoint do not go together.

    """
    check_policy(unconverged)
    traceable = solver.fixed_budget and (adjoint.traceable or not torch.is_grad_enabled())
    solve = _fixed_point if traceable else _fixed_point_out_of_graphs
    return solve(f, z0, args, solver, adjoint, iterate, unconverged)


def _fixed_point(
    f: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    solver: FixedPointSolver,
    adjoint: Adjoint,
    iterate: Iteration | None,
    unconverged: Policy,
) -> Solution[Any]:
    if iterate is None:
        solution = _solve(f, z0, args, solver, adjoint, unconverged)
    else:
        prepared = iterate.prepare(*args)
        start = iterate.start(z0, *prepared)
        judge = _judge(f, z0, args, iterate, start, prepared)
        found = _solve(iterate, start, prepared, solver, adjoint.tightened(iterate.tightening), unconverged, judge)
        solution = replace(found, value=iterate.read(found.value, *prepared))
    if not solver.fixed_budget:
        enforce(solution.stats, unconverged, "The forward solve")
    return solution


_fixed_point_out_of_graphs = eager(_fixed_point)


def _solve(
    f: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    solver: FixedPointSolver,
    adjoint: Adjoint,
    unconverged: Policy,
    judge: _Judge | None = None,
) -> Solution[Any]:
    """Does what `fixed_point` does, whatever comes of it."""
    layout = Layout(z0)
    flat = MatrixMap(f, layout, args, rule="A fixed point needs f(z) to have")
    problem = Problem(f=flat, z0=layout.ravel(z0), args=flat.tensors, unconverged=unconverged, judge=judge)
    found = adjoint.solve(problem, solver)
    # Without a graph the value may still share memory with z0, or with what f returned.
    value = layout.unravel(found.value if found.value.requires_grad else found.value.clone())
    return Solution(value=value, stats=found.stats, backward_log=found.backward_log)  # pyright: ignore[reportReturnType]


def _judge(
    f: Callable[..., Any], z0: Any, args: tuple[Any, ...], iterate: Iteration, start: Any, prepared: tuple[Any, ...]
) -> _Judge:
    """Returns what judges states of an iteration by the residual of f."""
    layout, inner = Layout(z0), Layout(start)
    flat = MatrixMap(f, layout, args, rule="A fixed point needs f(z) to have")

    @torch.no_grad()
    def judge(s: Tensor, ts: Tensor) -> tuple[Tensor, Tensor]:
        state = inner.unravel(s)
        value = iterate.read(state, *prepared)
        layout.check(value, rule="`read` has to return")
        z = layout.ravel(value)
        image = iterate.image(state, inner.unravel(ts), *prepared)
        fz = flat(z, *flat.tensors) if image is None else layout.ravel(image)
        return fz, fz - z

    return judge
