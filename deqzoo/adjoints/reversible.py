"""Exact gradients by running a reversible solve backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deqzoo.adjoints.base import Adjoint, Problem, refuse_double_backward, solve_without_graph
from deqzoo.adjoints.captured import captured_leaves
from deqzoo.adjoints.recall import Recall
from deqzoo.errors import AdjointError
from deqzoo.solution import Solution
from deqzoo.solvers import FixedPointSolver
from deqzoo.solvers import Reversible as ReversibleSolver


@dataclass(frozen=True, kw_only=True)
class Reversible(Adjoint):
    """The exact gradient of the steps that the `Reversible` solver took, which are undone one by one in the backward
    pass (McCallum et al. 2025, arXiv 2509.12917). Two more evaluations of f per step; the memory is that of one
    evaluation, plus a pair of states for every `segment` of steps.

    Exact however few steps were taken, and also with respect to the initial state. Tensor hooks on parameters see the
    part of each evaluation of f before they see the whole gradient.
    """

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        if not isinstance(solver, ReversibleSolver):
            raise AdjointError(
                f"Reversible() met solver={type(solver).__name__}, whose steps cannot be undone. "
                "Take solver=solvers.Reversible(), or adjoint=Implicit() for any solver."
            )
        if not torch.is_grad_enabled():
            return solve_without_graph(problem, solver.solve)
        found = solve_without_graph(problem, partial(solver.solve, record=True))
        leaves = captured_leaves(problem.f, problem.z0, problem.args)
        tensors = (*problem.args, *leaves)
        if not any(t.requires_grad for t in (problem.z0, *tensors)):
            return found
        value = _Undo.apply(problem.f, solver, found, len(problem.args), problem.z0, *tensors)
        return Solution(value=value, stats=found.stats)  # pyright: ignore[reportArgumentType]


class _Undo(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        f: Callable[..., Tensor],
        solver: ReversibleSolver,
        found: Solution[Tensor],
        num_args: int,
        z0: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        trajectory = found.state
        ctx.f, ctx.solver, ctx.num_args = f, solver, num_args
        flat = [x for pair in trajectory.checkpoints for x in pair]
        ctx.save_for_backward(trajectory.z, trajectory.y, trajectory.num_steps, *flat, *tensors)
        ctx.num_saved = 3 + len(flat)
        return found.value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        z, y, num_steps, *rest = ctx.saved_tensors
        flat, tensors = rest[: ctx.num_saved - 3], rest[ctx.num_saved - 3 :]
        checkpoints = list(zip(flat[::2], flat[1::2], strict=True))
        dtype, beta, segment = grads[0].dtype, ctx.solver.damping, ctx.solver.segment
        recall = Recall(tensors, ctx.num_args)

        def pull_back(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            """Returns f(x) and Jᵀ v in float64; adds v's part to the gradients of arguments and parameters."""
            fx, jv = recall.pull_back(ctx.f, x.to(dtype), v.to(dtype))
            return fx.double(), jv.double()

        gz, gy = grads[0].double(), torch.zeros_like(z)
        for step in range(int(num_steps.max()) if len(num_steps) else 0, 0, -1):
            # A sample joins at the step that produced its result.
            rows = (num_steps >= step)[:, None]
            fy, jv = pull_back(y, torch.where(rows, beta * gz, 0))
            gy = gy + jv
            z_before = (z - beta * fy) / (1 - beta)
            first, offset = divmod(step - 1, segment)
            if offset == 0:
                # Those whose result came earlier may have gone on to inf: 0 times that would be in everyone's gradient.
                z_before = torch.where(rows, checkpoints[first][0], z)
            fz, jv = pull_back(z_before, torch.where(rows, beta * gy, 0))
            y_before = checkpoints[first][1] if offset == 0 else (y - beta * fz) / (1 - beta)
            z, y = torch.where(rows, z_before, z), torch.where(rows, y_before, y)
            gz = torch.where(rows, (1 - beta) * gz + jv, gz)
            gy = torch.where(rows, (1 - beta) * gy, gy)
        return None, None, None, None, (gz + gy).to(dtype), *recall.sums
