"""Another solver for training than for use."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from deqzoo.adjoints import Adjoint
from deqzoo.nn import SolvingModule, equilibria, set_runtime
from deqzoo.ode import Integrator, ODEAdjoint
from deqzoo.solvers import FixedPointSolver


class TrainingSolver(Callback):
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
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"TrainingSolver got start={start} and end={end}. They are shares of a run, 0 <= start < end <= 1: "
                "leave them away for all of it."
            )
        self.solver = solver
        self.adjoint = adjoint
        self.start = start
        self.end = end
        self._own: list[tuple[SolvingModule, Any, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Assigns what training solves with.

        Raises:
            ValueError: if there is no equilibrium.
        """
        steps = trainer.estimated_stepping_batches
        if (self.start > 0 and trainer.global_step < self.start * steps) or (
            self.end < 1 and trainer.global_step >= self.end * steps
        ):
            return
        self._own = [(module, module.solver, module.adjoint) for module in equilibria(pl_module).values()]
        set_runtime(pl_module, solver=self.solver, adjoint=self.adjoint)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Gives the network its own back."""
        self._restore()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the network its own back after a batch that the task skipped."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the network its own back after a batch that was cut short."""
        self._restore()

    def _restore(self) -> None:
        for module, solver, adjoint in self._own:
            module.solver, module.adjoint = solver, adjoint
        self._own = []
