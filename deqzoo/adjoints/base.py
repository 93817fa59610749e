"""What an adjoint is: a way for gradients to pass an equilibrium. Autograd lives in this package alone."""

import abc
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from deqzoo.adjoints.autocast import current_autocast, exact_arithmetic
from deqzoo.errors import AdjointError
from deqzoo.solution import Policy, Solution
from deqzoo.solvers import FixedPointSolver, JudgedMap, Map


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One equilibrium problem in matrix form.

    Attributes:
        f: (z (B, N), *args) -> (B, N).
        z0: (B, N) where to start.
        args: what else f depends on, as tensors; they may require gradients.
        unconverged: the policy for backward solves.
        judge: of a map that stands in for another; see `JudgedMap`.

    """

    f: Callable[..., Tensor]
    z0: Tensor
    args: tuple[Tensor, ...]
    unconverged: Policy
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def map(self, z: Tensor) -> Tensor:
        """(B, N) -> (B, N): f with its arguments filled in."""
        return self.f(z, *self.args)

    def judged(self, evaluate: Map) -> Map:
        """Returns `evaluate`, which is this map in some way, for a solver."""
        return evaluate if self.judge is None else JudgedMap(evaluate, self.judge)


class Adjoint(abc.ABC):
    """How gradients get back through a solve. A value: a frozen dataclass, shareable and picklable."""

    traceable = False
    """Whether `torch.compile` can follow the backward pass. It can follow any solve without one."""

    def tightened(self, factor: float) -> "Adjoint":
        """Returns this adjoint with `factor` times its tolerances, if it has any."""
        return self

    @abc.abstractmethod
    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        """Returns the solution of `problem` by `solver`, differentiable by this adjoint's means."""


# `parametrize.cached()` is one switch for all threads: a graph must not be built while another thread has it on.
_weights = threading.RLock()


def _alone() -> AbstractContextManager[object]:
    """Returns a context in which no other thread touches the caches. Compiled code has none, and no lock is traced."""
    return nullcontext() if torch.compiler.is_compiling() else _weights


@contextmanager
def without_graph(device: torch.device) -> Iterator[None]:
    """A context for solves on `device`: no graph, no autocast, and parametrised weights are computed once in all."""
    # The caches close with the solve, before any evaluation that builds a graph: what is in them has no gradient.
    with _alone(), torch.no_grad(), parametrize.cached(), exact_arithmetic(device):
        yield
    if current_autocast(device):
        torch.clear_autocast_cache()


def solve_without_graph(problem: Problem, solve: Callable[[Map, Tensor], Solution[Tensor]]) -> Solution[Tensor]:
    """Returns what `solve` makes of the map and z0, detached."""
    with without_graph(problem.z0.device):
        return solve(problem.judged(problem.map), problem.z0.detach())


@contextmanager
def uncached_weights() -> Iterator[None]:
    """A context in which graphs may be built: no parametrised weight comes out of a cache.

    Raises:
        AdjointError: if an outer `parametrize.cached()` would hand weights without gradients to the graph.

    """
    with _alone():
        if parametrize._cache_enabled:
            raise AdjointError(
                "An equilibrium is being solved for training inside `parametrize.cached()`. Weights cached during the "
                "solve carry no gradient, so that training would silently stop: leave that context, deqzoo caches by "
                "itself."
            )
        yield


def evaluate_with_graph(problem: Problem, z: Tensor) -> Tensor:
    """Returns f(z) (B, N) with its graph."""
    with uncached_weights():
        return problem.map(z)


def vector_jacobian(fz: Tensor, z: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    """Returns Jᵀ u (B, N), with J the Jacobian at z of what fz was computed by; zero where fz does not depend on z."""
    return torch.autograd.grad(fz, z, u, retain_graph=True, create_graph=create_graph, materialize_grads=True)[0]


class _Gate(torch.autograd.Function):
    """Returns one tensor's value and sends the gradient, transformed, to another's graph."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor, transform: Map) -> Tensor:
        ctx.transform = transform
        # A tensor of its own, that its owner may change in place.
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        return ctx.transform(grads[0]), None, None


def gate(surrogate: Tensor, value: Tensor, transform: Map) -> Tensor:
    """Returns `value`, through which a gradient v reaches `surrogate` as transform(v); all of shape (B, N)."""
    return _Gate.apply(surrogate, value, transform)  # pyright: ignore[reportReturnType]


def refuse_double_backward() -> None:
    """Raises an `AdjointError` inside a backward pass that builds a graph (`create_graph=True`)."""
    if torch.is_grad_enabled():
        raise AdjointError(
            "A second derivative was asked for (create_graph=True) through an adjoint that gives first derivatives "
            "only. Use `adjoint=Unrolled()` with a `Picard` solver, whose graph can be differentiated again."
        )
