"""Plain backpropagation through a solve."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from deqzoo.adjoints.autocast import exact_arithmetic
from deqzoo.adjoints.base import uncached_weights
from deqzoo.ode.adjoint import ODEAdjoint, ODEProblem
from deqzoo.ode.base import Integrator, column, stage_times
from deqzoo.ode.fixed_steps import FixedSteps
from deqzoo.ode.tableau import take_step
from deqzoo.ode.trajectory import Trajectory
from deqzoo.solution import Solution


@dataclass(frozen=True, kw_only=True)
class Unrolled(ODEAdjoint):
    """The gradient of the steps that were accepted, by plain autograd: memory grows with them.

    Differentiable any number of times. An adaptive integrator finds its steps first, without a graph, and then takes
    them again; these evaluations are not counted. Equal steps are taken once.
    """

    def solve(self, problem: ODEProblem, integrator: Integrator) -> Solution[Tensor]:
        if not torch.is_grad_enabled():
            return problem.solve(integrator)
        if isinstance(integrator, FixedSteps):
            steps = integrator.schedule(problem.span)
            value = self._taken(problem, integrator, steps, problem.h0)
            num_evals = len(steps) * len(integrator.tableau.b)
            return Solution(value=value, stats=integrator.stats(value, problem.span, num_evals))
        trajectory = Trajectory(keep_states=False)
        found = problem.solve(integrator, trajectory.visit)
        trajectory.forget(found.state.lost)
        # Lost samples rest at zero: what they met, NaN perhaps, is no part of the graph.
        lost = column(found.state.lost, found.value)
        value = self._taken(problem, integrator, trajectory.steps(), problem.h0.masked_fill(lost, 0))
        return Solution(value=torch.where(lost, found.value, value), stats=found.stats)

    @staticmethod
    def _taken(
        problem: ODEProblem, integrator: Integrator, steps: list[tuple[np.ndarray, np.ndarray]], h: Tensor
    ) -> Tensor:
        field = partial(_evaluate, problem)
        with exact_arithmetic(h.device):
            for t, dt in steps:
                h = take_step(integrator.tableau, field, h, *stage_times(integrator.tableau, t, dt, h)).end
        return h


def _evaluate(problem: ODEProblem, h: Tensor, t: Tensor) -> Tensor:
    with uncached_weights():
        return problem.field(h, t)
