"""The continuous adjoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deqzoo.adjoints.recall import Recall
from deqzoo.ode.adjoint import ODEAdjoint, ODEProblem, differentiable, tensors_of
from deqzoo.ode.base import Integrator, Span, Step, column, stage_times
from deqzoo.solution import Solution, Stats, enforce
from deqzoo.solvers.rows import row_maxima


@dataclass(frozen=True, kw_only=True)
class Continuous(ODEAdjoint):
    """The gradient of the ODE itself, from its solution alone: memory does not grow with the steps of either solve.

    With a = ∂L/∂h, the pair (h, a) obeys h' = f, a' = −(∂f/∂h)ᵀ a and is integrated from the end back to the start;
    ∂L/∂θ = ∫ (∂f/∂θ)ᵀ a dt is summed up by the same rule along the accepted steps, each sample's at its own times
    (Chen et al. 2018, "Neural ordinary differential equations"). The gradient is as exact as both integrations are.
    Dynamics that forget where they came from cannot be integrated back: take `Checkpointed` where f contracts much.

    Attributes:
        integrator: of the way back; None for that of the way forth. h and a keep to its tolerances each.

    """

    integrator: Integrator | None = None

    def solve(self, problem: ODEProblem, integrator: Integrator) -> Solution[Tensor]:
        found = problem.solve(integrator)
        if not torch.is_grad_enabled():
            return found
        back = self.integrator or integrator
        f, log, unconverged = problem.f, list[Stats](), problem.unconverged
        span = Span(start=found.state.t, end=problem.span.start)

        def pull(recall: Recall, saved: Sequence[Tensor], v: Tensor) -> Tensor:
            (h,) = saved
            size = row_maxima(v)
            # At unit size no square under- or overflows. Powers of two change no digit.
            unit = torch.ldexp(torch.ones_like(size), torch.frexp(size)[1])

            def field(pair: Tensor, t: Tensor) -> Tensor:
                h, a = pair.tensor_split(2, dim=1)
                slope, pulled = recall.pull_back(lambda h, *args: f(h, t, *args), h, a, state_only=True)
                return torch.cat([slope, -pulled], dim=1)

            def add_up(step: Step) -> None:
                times, lengths = stage_times(back.tableau, step.t, step.dt, h)
                for pair, t, weight in zip(step.stages.states, times, back.tableau.b, strict=True):
                    if weight:
                        part = -weight * lengths * pair[:, h.shape[1] :]
                        # What a sample makes of a step that it does not take is nothing, not zero times something.
                        part = torch.where(lengths != 0, part, 0) * unit
                        recall.pull_back(lambda h, *args, t=t: f(h, t, *args), pair[:, : h.shape[1]], part)

            start = torch.cat([h, v / unit], dim=1)
            solution = back.solve(field, start, span, num_blocks=2, visit=add_up)
            log[:] = [solution.stats]
            if not back.fixed_budget:
                enforce(solution.stats, unconverged, "The backward integration")
            return solution.value[:, h.shape[1] :] * unit

        # A sample without a value has an empty way back; anything finite stands for it.
        value = found.value
        end = torch.where(column(span.start == span.end, value), value.nan_to_num(), value)
        return replace(
            found, value=differentiable(problem, tensors_of(problem), value, [end], pull), state=None, backward_log=log
        )
