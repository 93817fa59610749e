"""Ways to solve a case of the solver benchmark: this library's, torchdeq's, and plain loops."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from deqzoo.adjoints import Implicit
from deqzoo.benchmark.cells import Case
from deqzoo.fixed_point import fixed_point
from deqzoo.solvers import GMRES, Anderson, Broyden, FixedPointSolver, NewtonKrylov, Picard

Attempt: TypeAlias = tuple[Tensor, Callable[[], int]]
"""An equilibrium with its gradient, and how many evaluations its backward solve took, once it has run."""


@dataclass(frozen=True)
class Contender:
    """One way to solve.

    Attributes:
        library: "deqzoo", "torchdeq" or "loop".
        forward: the forward solver's name.
        backward: the backward solver's name.
        attempt: f, z0 -> `Attempt`. f counts its own evaluations.

    """

    library: str
    forward: str
    backward: str
    attempt: Callable[[Callable[[Tensor], Tensor], Tensor], Attempt]


def ours(rtol: float, budget: int) -> Iterator[Contender]:
    """Yields this library's solvers, each with the backward solvers that go well with it."""

    def contender(solver: FixedPointSolver, backward: FixedPointSolver) -> Contender:
        solver = dataclasses.replace(solver, rtol=rtol)
        adjoint = Implicit(solver=dataclasses.replace(backward, rtol=rtol, max_steps=budget))

        def attempt(f: Callable[[Tensor], Tensor], z0: Tensor) -> Attempt:
            found = fixed_point(f, z0, solver=solver, adjoint=adjoint, unconverged="ignore")
            return found.value, lambda: found.backward_stats.num_evals if found.backward_stats else 0

        return Contender("deqzoo", _name(solver), _name(backward), attempt)

    for solver in (Picard(max_steps=budget), Anderson(max_steps=budget), Broyden(max_steps=budget)):
        yield contender(solver, solver)
        yield contender(solver, GMRES())
    # Stiff equations and linear ones are worth longer histories.
    yield contender(Anderson(max_steps=budget, memory=10), Anderson(memory=15))
    # Where the map is cheap, combining in each step is not.
    periodic = Anderson(max_steps=budget, period=2)
    yield contender(periodic, periodic)
    yield contender(periodic, GMRES())
    yield contender(NewtonKrylov(), GMRES())


def _name(solver: FixedPointSolver) -> str:
    """Returns the name of the solver with what tells it from its defaults, but for tolerance and budget."""
    default = type(solver)(rtol=solver.rtol, max_steps=solver.max_steps)
    changed = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}.items()
    told = ", ".join(f"{name}={value}" for name, value in changed if value != getattr(default, name))
    return type(solver).__name__ + (f"({told})" if told else "")


def torchdeqs(rtol: float, budget: int) -> Iterator[Contender]:
    """Yields every pair of torchdeq's solvers, stopped by the same relative residual.

    Raises:
        ModuleNotFoundError: if torchdeq is not installed.

    """
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    names = ("fixed_point_iter", "anderson", "broyden")

    def contender(forward: str, backward: str) -> Contender:
        deq = get_deq(
            f_solver=forward,
            b_solver=backward,
            f_max_iter=budget,
            b_max_iter=budget,
            f_tol=rtol,
            b_tol=rtol,
            f_stop_mode="rel",
            b_stop_mode="rel",
            ift=True,
        ).train()

        def attempt(f: Callable[[Tensor], Tensor], z0: Tensor) -> Attempt:
            log: list[dict[str, Tensor]] = []
            states, _ = deq(f, z0, backward_writer=log.append)
            return states[-1], lambda: int(log[0]["nstep"].max()) if log else 0

        return Contender("torchdeq", forward, backward, attempt)

    return (contender(forward, backward) for forward in names for backward in names)


def unrolled_loop(steps: int) -> Contender:
    """Returns the plain loop of that many evaluations, differentiated by autograd."""

    def attempt(f: Callable[[Tensor], Tensor], z0: Tensor) -> Attempt:
        z = z0
        for _ in range(steps):
            z = f(z)
        return z, lambda: steps

    return Contender("loop", "iteration", "autograd", attempt)


def true_residual(case: Case, z: Tensor) -> float:
    """Returns the largest ‖f(z) − z‖ / ‖f(z)‖ in a batch."""
    with torch.no_grad():
        fz = case.f(z)
        return float(((fz - z).flatten(1).norm(dim=1) / fz.flatten(1).norm(dim=1)).max())
