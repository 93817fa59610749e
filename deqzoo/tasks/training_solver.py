"""Another solver for training than for use."""

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
    """

    def __init__(
        self,
        *,
        solver: FixedPointSolver | Integrator | None = None,
        adjoint: Adjoint | ODEAdjoint | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        super().__init__(start=start, end=end)
        self.solver = solver
        self.adjoint = adjoint
        self._own: list[tuple[SolvingModule, Any, Any]] = []

    def do(self, task: LightningModule) -> None:
        """Assigns what training solves with.

        Raises:
            ValueError: if there is no equilibrium.
        """
        self._own = [(module, module.solver, module.adjoint) for module in equilibria(task).values()]
        set_runtime(task, solver=self.solver, adjoint=self.adjoint)

    def undo(self) -> None:
        """Gives the network its own back."""
        for module, solver, adjoint in self._own:
            module.solver, module.adjoint = solver, adjoint
        self._own = []
