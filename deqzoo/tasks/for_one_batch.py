"""What changes a network for one training batch, and for no longer."""

import abc
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class ForOneBatch(Callback, abc.ABC):
    """A callback whose changes are undone when a training batch ends, however it ends.

    Args:
        start: share of the run's steps after which it acts.
        end: share of the run's steps after which it acts no more.
    """

    def __init__(self, *, start: float = 0.0, end: float = 1.0) -> None:
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"{type(self).__name__} got start={start} and end={end}. They are shares of a run, 0 <= start < end "
                "<= 1: leave them away for all of it."
            )
        self.start = start
        self.end = end

    @abc.abstractmethod
    def do(self, task: LightningModule) -> None:
        """Makes the changes."""

    @abc.abstractmethod
    def undo(self) -> None:
        """Leaves everything as it was before the batch; does nothing where nothing was changed."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Makes the changes in its part of the run."""
        steps = trainer.estimated_stepping_batches if self.start > 0 or self.end < 1 else 1
        if (self.start == 0 or trainer.global_step >= self.start * steps) and (
            self.end == 1 or trainer.global_step < self.end * steps
        ):
            self.do(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Undoes the changes."""
        self.undo()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Undoes them after a batch that the task skipped."""
        self.undo()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Undoes them after a batch that was cut short."""
        self.undo()
