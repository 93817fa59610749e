"""A module whose output is the end of a trajectory."""

import abc
from typing import Any

from torch import Tensor, nn

from deqzoo.nn.solving_module import SolvingModule
from deqzoo.ode import Integrator, ODEAdjoint, odeint
from deqzoo.solution import Policy, Solution
from deqzoo.tree import State


class Dynamics(nn.Module, abc.ABC):
    """The field (h, t) ↦ h' = f(h, t, *injection). It knows no integrator and no gradient.

    Each sample comes with a time of its own. Noise, such as a dropout mask, is drawn before the integration and comes
    in with the injection.
    """

    @abc.abstractmethod
    def forward(self, h: Any, t: Tensor, /, *injection: Any, **kwargs: Any) -> Any:
        """Returns the derivative of a state h (B, ...) at times t (B,), of the structure of h."""


class ODEModule(SolvingModule[Integrator, ODEAdjoint]):
    """h(0) ↦ h(1), where h' = f(h, t, injection).

    Args:
        dynamics: f. It must treat samples separately.
        solver: the integrator.
        adjoint: how gradients get back.
        unconverged: what to do about samples that do not get to the end within the tolerance.

    Raises:
        StructureError: if the dynamics hold a layer that mixes samples or draws new noise in each evaluation.

    """

    task = "integrates an ODE"
    solver_kind = Integrator
    adjoint_kind = ODEAdjoint

    def __init__(
        self, dynamics: Dynamics, *, solver: Integrator, adjoint: ODEAdjoint, unconverged: Policy = "warn"
    ) -> None:
        super().__init__(dynamics, solver=solver, adjoint=adjoint, unconverged=unconverged)
        self.dynamics = dynamics

    def forward(self, h0: State, *injection: Tensor) -> State:
        """Returns the state at time 1, from `h0` (B, ...) at time 0."""
        return self.solve(h0, *injection).value

    def solve(self, h0: State, *injection: Tensor) -> Solution[State]:
        """Does what calling does and returns the whole solution: the state, its cost and how it ended."""
        solution = odeint(
            self.dynamics, h0, *injection, integrator=self.solver, adjoint=self.adjoint, unconverged=self.unconverged
        )
        self._tell(solution)
        return solution
