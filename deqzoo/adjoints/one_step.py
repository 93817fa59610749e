"""Jacobian-free gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.adjoints.base import Adjoint, Problem, evaluate_with_graph, gate, solve_without_graph
from deqzoo.solution import Solution
from deqzoo.solvers import FixedPointSolver


@dataclass(frozen=True, kw_only=True)
class OneStep(Adjoint):
    """The gradient of one evaluation of f at the equilibrium, as if the equilibrium were a constant.

    A descent direction where f contracts enough (Fung et al. 2022, "JFB: Jacobian-free backpropagation", theorem 3.1),
    at the price of one vector-Jacobian product.
    """

    traceable = True

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        found = solve_without_graph(problem, solver.solve)
        if not torch.is_grad_enabled():
            return found
        fz = evaluate_with_graph(problem, found.value.detach())
        return Solution(value=gate(fz, found.value, lambda v: v), stats=found.stats) if fz.requires_grad else found
