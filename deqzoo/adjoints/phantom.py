"""Phantom gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deqzoo.adjoints.base import Adjoint, Problem, evaluate_with_graph, gate, solve_without_graph
from deqzoo.solution import Solution
from deqzoo.solvers import FixedPointSolver


@dataclass(frozen=True, kw_only=True)
class Phantom(Adjoint):
    """The gradient of k damped iterations z ← z + λ (f(z) − z) that start from the equilibrium, unrolled
    (Geng et al. 2021, "On training implicit models", equation 9).

    The value stays the equilibrium itself. The gradient tends to the implicit one as k grows, where f contracts.

    Attributes:
        steps: k.
        damping: λ in (0, 1].

    """

    steps: int = 5
    damping: float = 0.5

    traceable = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Phantom got steps={self.steps}. It unrolls at least one: Phantom(steps=5).")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Phantom got damping={self.damping}. It must lie in (0, 1]: 0.5 is the usual choice.")

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        found = solve_without_graph(problem, solver.solve)
        if not torch.is_grad_enabled():
            return found
        z = found.value.detach()
        for _ in range(self.steps):
            z = torch.lerp(z, evaluate_with_graph(problem, z), self.damping)
        return Solution(value=gate(z, found.value, lambda v: v), stats=found.stats) if z.requires_grad else found
