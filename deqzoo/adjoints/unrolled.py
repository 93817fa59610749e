"""Backpropagation through the solver."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from deqzoo.adjoints.autocast import exact_arithmetic
from deqzoo.adjoints.base import Adjoint, Problem, evaluate_with_graph, solve_without_graph
from deqzoo.errors import AdjointError
from deqzoo.solution import Solution
from deqzoo.solvers import FixedPointSolver, IterativeSolver


@dataclass(frozen=True, kw_only=True)
class Unrolled(Adjoint):
    """The gradient of the steps that were taken, by plain autograd: memory grows with them.

    Differentiable any number of times, and with respect to the initial state. For solvers whose steps autograd can
    follow, such as `Picard`.
    """

    traceable = True

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        if not torch.is_grad_enabled():
            return solve_without_graph(problem, solver.solve)
        if not (isinstance(solver, IterativeSolver) and solver.differentiable):
            raise AdjointError(
                f"Unrolled() met solver={type(solver).__name__}, whose histories are written in place. Autograd can "
                "follow Picard: take solver=Picard(), or adjoint=Implicit() for any solver."
            )
        with exact_arithmetic(problem.z0.device):
            return solver.solve(problem.judged(partial(evaluate_with_graph, problem)), problem.z0)
