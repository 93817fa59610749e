"""What an adjoint of an ODE is, and what those that evaluate f anew in the backward pass have in common."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from deqzoo.adjoints.autocast import exact_arithmetic
from deqzoo.adjoints.base import refuse_double_backward, without_graph
from deqzoo.adjoints.captured import captured_leaves
from deqzoo.adjoints.recall import Recall
from deqzoo.ode.base import Integrator, Span, Visitor
from deqzoo.solution import Policy, Solution


@dataclass(frozen=True, kw_only=True)
class ODEProblem:
    """One initial value problem in matrix form.

    Attributes:
        f: (h (B, N), t (B,), *args) -> h' (B, N).
        h0: (B, N) at the start.
        args: what else f depends on, as tensors; they may require gradients.
        span: the intervals.
        unconverged: the policy for backward solves.

    """

    f: Callable[..., Tensor]
    h0: Tensor
    args: tuple[Tensor, ...]
    span: Span
    unconverged: Policy

    def field(self, h: Tensor, t: Tensor) -> Tensor:
        """(B, N), (B,) -> (B, N): f with its arguments filled in."""
        return self.f(h, t, *self.args)

    def solve(self, integrator: Integrator, visit: Visitor | None = None) -> Solution[Tensor]:
        """Returns the solution by `integrator`, detached."""
        with without_graph(self.h0.device):
            return integrator.solve(self.field, self.h0.detach(), self.span, visit=visit)


class ODEAdjoint(abc.ABC):
    """How gradients get back through an integration. A value: a frozen dataclass, shareable and picklable.

    The times that an adaptive integrator steps to are constants: gradients do not pass through their choice.
    """

    @abc.abstractmethod
    def solve(self, problem: ODEProblem, integrator: Integrator) -> Solution[Tensor]:
        """Returns the solution of `problem` by `integrator`, differentiable by this adjoint's means."""


PullThrough: TypeAlias = Callable[[Recall, Sequence[Tensor], Tensor], Tensor]
"""(evaluates anew, saved tensors, v (B, N)) -> (B, N): carries a gradient v of the end back to the start."""


def tensors_of(problem: ODEProblem) -> tuple[Tensor, ...]:
    """Returns all that f depends on: its arguments, then the leaves that it captures. Costs one evaluation."""
    t = torch.from_numpy(problem.span.start).to(problem.h0.device, problem.h0.dtype)
    return *problem.args, *captured_leaves(lambda h, *args: problem.f(h, t, *args), problem.h0, problem.args)


def differentiable(
    problem: ODEProblem, tensors: tuple[Tensor, ...], value: Tensor, saved: Sequence[Tensor], pull: PullThrough
) -> Tensor:
    """Returns `value` (B, N), through which gradients reach h0 and `tensors` by `pull`."""
    if not any(t.requires_grad for t in (problem.h0, *tensors)):
        return value
    found: Any = _Anew.apply(pull, len(problem.args), len(saved), value, problem.h0, *saved, *tensors)
    return found


class _Anew(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pull: PullThrough, num_args: int, num_saved: int, value: Tensor, h0: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.num_args, ctx.num_saved, ctx.pull = num_args, num_saved, pull
        ctx.save_for_backward(*tensors)
        # A tensor of its own, that its owner may change in place.
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        saved, tensors = ctx.saved_tensors[: ctx.num_saved], ctx.saved_tensors[ctx.num_saved :]
        recall = Recall(tensors, ctx.num_args)
        with torch.no_grad(), exact_arithmetic(grads[0].device):
            start = ctx.pull(recall, saved, grads[0])
        return None, None, None, None, start, *(None for _ in saved), *recall.sums
