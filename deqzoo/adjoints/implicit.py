"""Gradients by the implicit function theorem."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from deqzoo.adjoints.autocast import exact_arithmetic
from deqzoo.adjoints.base import (
    Adjoint,
    Problem,
    evaluate_with_graph,
    gate,
    solve_without_graph,
    vector_jacobian,
)
from deqzoo.adjoints.captured import depends_on_others
from deqzoo.errors import AdjointError
from deqzoo.solution import Solution, Stats, enforce
from deqzoo.solvers import AffineMap, Anderson, Broyden, FixedPointSolver
from deqzoo.solvers.rows import row_maxima


@dataclass(frozen=True, kw_only=True)
class Implicit(Adjoint):
    """Exact gradients from the equilibrium alone: memory does not grow with the steps of the solve.

    With J the Jacobian of f at z* and v the gradient that arrives there, u = Jᵀ u + v is solved, and u is passed on
    through one evaluation of f at z* (Bai, Kolter & Koltun 2019, theorem 1).

    Attributes:
        solver: of the linear system, which is scaled to gradients of size one. It has its own tolerances: gradients
            rarely need the forward's.
        reuse: start from the forward's `Broyden` inverse applied to v (Ramzi et al. 2022, "SHINE"); with a budget of
            one step that estimate is used as it is.

    """

    solver: FixedPointSolver = field(default_factory=Anderson)
    reuse: bool = False

    def tightened(self, factor: float) -> "Implicit":
        return replace(self, solver=self.solver.tightened(factor))

    def solve(self, problem: Problem, solver: FixedPointSolver) -> Solution[Tensor]:
        if self.reuse and not isinstance(solver, Broyden):
            raise AdjointError(
                f"Implicit(reuse=True) met a forward solver {type(solver).__name__}. Only Broyden keeps an inverse of "
                "the Jacobian to reuse: take solver=Broyden() or reuse=False."
            )
        found = solve_without_graph(problem, solver.solve)
        if not torch.is_grad_enabled():
            return found
        z = found.value.detach().requires_grad_()
        fz = evaluate_with_graph(problem, z)
        if not any(arg.requires_grad for arg in problem.args) and not depends_on_others(fz, z):
            return found
        # What the backward pass does not need must not be kept for it.
        inverse = found.state if self.reuse else None
        log: list[Stats] = []

        def transform(v: Tensor) -> Tensor:
            # The system is linear: it is solved at unit size, where no square under- or overflows.
            # Powers of two change no digit.
            size = row_maxima(v)
            unit = torch.ldexp(torch.ones_like(size), torch.frexp(size)[1])
            v = v / unit
            backward = AffineMap(partial(vector_jacobian, fz, z), v)
            with exact_arithmetic(v.device):
                if inverse is None:
                    # At u = 0 the map is known without a product.
                    solution = self.solver.solve(backward, torch.zeros_like(v), v)
                else:
                    solution = self.solver.solve(backward, inverse.solve_transposed(v))
            log[:] = [solution.stats]
            if not self.solver.fixed_budget:
                enforce(solution.stats, problem.unconverged, "The backward solve")
            return solution.value * unit

        return Solution(value=gate(fz, found.value, transform), stats=found.stats, backward_log=log)
