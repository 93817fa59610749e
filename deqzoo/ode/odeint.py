"""h' = f(h, t): joins states, integrators and adjoints."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from deqzoo.matrix_map import MatrixMap, eager
from deqzoo.ode.adjoint import ODEAdjoint, ODEProblem
from deqzoo.ode.base import Integrator, as_span
from deqzoo.ode.checkpointed import Checkpointed
from deqzoo.ode.dormand_prince import DormandPrince
from deqzoo.solution import Policy, Solution, check_policy, enforce
from deqzoo.tree import Layout, State

H = TypeVar("H", bound=State)


@eager
def odeint(
    f: Callable[..., H],
    h0: H,
    *args: Any,
    t0: float | Tensor = 0.0,
    t1: float | Tensor = 1.0,
    integrator: Integrator = DormandPrince(),
    adjoint: ODEAdjoint = Checkpointed(),
    unconverged: Policy = "warn",
) -> Solution[H]:
    """Integrates h' = f(h, t, *args) from t0 to t1 for every sample of a batch on its own.

    A sample's result does not depend on the others in its batch, as long as `f` does not mix them: each has its own
    time and, under an adaptive integrator, its own steps. Whatever needs a gradient should come through `args` or be
    a parameter that `f` uses.

    In the statistics, `num_evals` counts the evaluations of f for the batch, `num_steps` those that a sample took
    part in until it reached its end, and `residual` is the largest error that a sample's steps were estimated to
    make, relative to its state: a bound on neither side of the error at t1, but a measure of the care taken. It is NaN
    where nothing estimates it.

    Args:
        f: maps a state, times (B,) and `args` to the state's derivative, of the same structure and shapes.
        h0: the state at t0: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to `f`; tensors and nests of tuples of them may require gradients.
        t0: where to start; one number, or a tensor (B,) with one for each sample.
        t1: where to end, likewise; before t0 to go back in time.
        integrator: how to get there.
        adjoint: how gradients get back.
        unconverged: what to do about samples that do not get there within the tolerance.

    Returns:
        The state at t1. A sample that ran out of steps has the state that it got to.

    Raises:
        StructureError: if h0 is no state, a time is unfit, or `f` returns no derivative of such a state.
        SolverError: under unconverged="raise", if a sample does not get there within the tolerance.

    """
    check_policy(unconverged)
    layout = Layout(h0)
    span = as_span(t0, t1, layout.batch_size)
    start = torch.from_numpy(span.start).to(layout.device, layout.dtype)
    flat = MatrixMap(f, layout, (start, *args), rule="A derivative has")
    problem = ODEProblem(f=flat, h0=layout.ravel(h0), args=flat.tensors[1:], span=span, unconverged=unconverged)
    found = adjoint.solve(problem, integrator)
    if not integrator.fixed_budget:
        enforce(found.stats, unconverged, "The integration")
    # Without a graph the value may still share memory with h0.
    value = layout.unravel(found.value if found.value.requires_grad else found.value.clone())
    return Solution(value=value, stats=found.stats, backward_log=found.backward_log)  # pyright: ignore[reportReturnType]
