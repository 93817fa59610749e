"""Backpropagation through a solve, one step at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from deqzoo.adjoints.recall import Recall
from deqzoo.ode.adjoint import ODEAdjoint, ODEProblem, differentiable, tensors_of
from deqzoo.ode.base import Integrator, stage_times
from deqzoo.ode.tableau import Tableau, take_step
from deqzoo.ode.trajectory import Trajectory
from deqzoo.solution import Solution


@dataclass(frozen=True, kw_only=True)
class Checkpointed(ODEAdjoint):
    """The exact gradient of the steps that were accepted, each taken again in the backward pass.

    Keeps a state per step, and what autograd needs for the stages of one step at a time. Rejected steps leave no
    trace.
    """

    def solve(self, problem: ODEProblem, integrator: Integrator) -> Solution[Tensor]:
        if not torch.is_grad_enabled():
            return problem.solve(integrator)
        trajectory = Trajectory(keep_states=True)
        found = problem.solve(integrator, trajectory.visit)
        trajectory.forget(found.state.lost)
        # Not `problem`, whose tensors would be kept unguarded.
        f, steps, tableau = problem.f, trajectory.steps(), integrator.tableau

        def pull(recall: Recall, states: Sequence[Tensor], v: Tensor) -> Tensor:
            for (t, dt), state in zip(reversed(steps), reversed(states), strict=True):
                times, lengths = stage_times(tableau, t, dt, state)

                _, v = recall.pull_back(partial(_step, f, tableau, times, lengths), state, v)
            return v

        value = differentiable(problem, tensors_of(problem), found.value, trajectory.states(), pull)
        return Solution(value=value, stats=found.stats)


def _step(
    f: Callable[..., Tensor], tableau: Tableau, times: Tensor, lengths: Tensor, h: Tensor, *args: Tensor
) -> Tensor:
    return take_step(tableau, lambda h, t: f(h, t, *args), h, times, lengths).end
