"""Another solver for training than for use."""

import random
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule

from deqzoo.adjoints import Adjoint
from deqzoo.nn import SolvingModule, equilibria, set_runtime
from deqzoo.ode import Integrator, ODEAdjoint
from deqzoo.solvers import FixedPointSolver
from deqzoo.tasks.for_one_batch import ForOneBatch


class TrainingSolver(ForOneBatch):
    """Solves every equilibrium or ODE differently while training batches run.

    Gradients bear looser tolerances than predictions do. Outside of training batches, in validation and test too, the
    network has its own solvers and adjoints, so that a model has one accuracy whoever measures it.

    Args:
        solver: how equilibria are found in training, in place of the network's own solvers.
        adjoint: how gradients pass them, likewise.
        start: share of the run's steps after which it does so.
        end: share of the run's steps after which it does so no more. Budgets may grow over a run: what is left to learn
            at its end are details, which a coarse solve hides.
        budgets: fewest and most `max_steps`, in place of those of `solver`, which are then drawn anew for each step of
            the optimiser. They depend on the number of the step alone: all devices, and all seeds, have the same ones.
            A network that meets one budget alone may learn the way there in place of the equilibrium, and get worse
            with every evaluation more.

    Raises:
        ValueError: for budgets that are no range, or no solver to have them.
    """

    def __init__(
        self,
        *,
        solver: FixedPointSolver | Integrator | None = None,
        adjoint: Adjoint | ODEAdjoint | None = None,
        start: float = 0.0,
        end: float = 1.0,
        budgets: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(start=start, end=end)
        if budgets is not None:
            if not isinstance(solver, FixedPointSolver):
                raise ValueError(
                    f"TrainingSolver got budgets={budgets} for solver={solver}. Only solvers of fixed points have "
                    "budgets: give one, or leave budgets away."
                )
            fewest, most = budgets
            if not 1 <= fewest <= most:
                raise ValueError(
                    f"TrainingSolver got budgets={budgets}. They are the fewest and the most `max_steps` of a solve, "
                    "1 <= fewest <= most: use (6, 16), say."
                )
        self.solver = solver
        self.adjoint = adjoint
        self.budgets = budgets
        self._own: list[tuple[SolvingModule, Any, Any]] = []

    def do(self, task: LightningModule) -> None:
        """Assigns what training solves with.

        Raises:
            ValueError: if there is no equilibrium.
        """
        self._own = [(module, module.solver, module.adjoint) for module in equilibria(task).values()]
        set_runtime(task, solver=self._drawn(task.global_step), adjoint=self.adjoint)

    def _drawn(self, step: int) -> FixedPointSolver | Integrator | None:
        """Returns the solver of a step. It depends on nothing but the step, so that a run resumes with the same one."""
        if self.budgets is None:
            return self.solver
        assert isinstance(self.solver, FixedPointSolver)
        return replace(self.solver, max_steps=random.Random(step).randint(*self.budgets))

    def undo(self) -> None:
        """Gives the network its own back."""
        for module, solver, adjoint in self._own:
            module.solver, module.adjoint = solver, adjoint
        self._own = []
