"""Gradients by the implicit function theorem."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqzoo.adjoints.base import Adjoint, Problem, gate, solve_without_graph
from deqzoo.errors import AdjointError
from deqzoo.solution import Solution, Stats, enforce
from deqzoo.solvers import AffineMap, Anderson, Broyden, FixedPointSolver


@dataclass(frozen=True, kw_only=True)
class Implicit(Adjoint):
    """Exact gradients from the equilibrium alone: memory does not grow with the steps of the solve.

    With J the Jacobian of f at z* and v the gradient that arrives there, u = Jᵀ u + v is solved, and u is passed on
    through one evaluation of f at z* (Bai, Kolter & Koltun 2019, theorem 1).

    Attributes:
        solver: of the linear system. It has its own tolerances: gradients rarely need the forward's.
        reuse: start from the forward's `Broyden` inverse applied to v (Ramzi et al. 2022, "SHINE"); with a budget of
            one step that estimate is used as it is.

    """

    solver: FixedPointSolver = field(default_factory=Anderson)
    reuse: bool = False

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        if self.reuse and not isinstance(solver, Broyden):
            raise AdjointError(
                f"Implicit(reuse=True) met a forward solver {type(solver).__name__}. Only Broyden keeps an inverse of "
                "the Jacobian to reuse: take solver=Broyden() or reuse=False."
            )
        found = solve_without_graph(problem, solver)
        if not torch.is_grad_enabled():
            return found
        z = found.value.detach().requires_grad_()
        fz = problem.map(z)
        if fz.grad_fn is None or not fz.requires_grad:
            return found
        log: list[Stats] = []

        def transform(v: Tensor) -> Tensor:
            def vjp(u: Tensor) -> Tensor:
                # This runs below the gate, so that asking for z's gradient does not come back here.
                return torch.autograd.grad(fz, z, u, retain_graph=True)[0]

            # At u = 0 the map is known without a product.
            start, first = torch.zeros_like(v), v
            if self.reuse:
                start, first = found.state.solve_transposed(v), None
            solution = self.solver.solve(AffineMap(vjp, v), start, first)
            log.append(solution.stats)
            if not self.solver.fixed_budget:
                enforce(solution.stats, problem.unconverged, "The backward solve")
            return solution.value

        return Solution(value=gate(fz, found.value, transform), stats=found.stats, backward_log=log)
