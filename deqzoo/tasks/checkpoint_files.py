"""Which checkpoints a run writes, and when."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from deqzoo.tasks.told_to_end import PreemptedException, Told, requeue


class LastCheckpoint(ModelCheckpoint):
    """Writes last.ckpt after every epoch and after the batch in which a process is told to end.

    That is by SIGTERM or, from SLURM, by the signal before the time is over; then the job is also queued again.
    `save_last` beside a monitored metric saves only after epochs that improved the metric.

    Args:
        folder: to write into.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            filename="last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,  # also in epochs without validation
            enable_version_counter=False,
        )
        self._folder = folder
        self._told = Told()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens to signals."""
        super().on_train_start(trainer, pl_module)
        self._told.listen(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends training in all processes together once one of them was told to."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._told.obey(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves the batches of an epoch that a signal cuts short."""
        # In validation the network has other weights than in training.
        if not isinstance(exception, SIGTERMException) or trainer.validating:
            return
        if not trainer.fast_dev_run and self._last_global_step_saved != trainer.global_step:  # pyright: ignore
            self._save_checkpoint(trainer, str(self._folder / "last.ckpt"))
        if isinstance(exception, PreemptedException):
            if trainer.is_global_zero:
                requeue()
            # Whoever ended now would have the others killed before that is done.
            trainer.strategy.barrier()


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt after each epoch with the best figure of validation so far; nothing without such.

    Args:
        folder: to write into.
        figure: as the task logs it.
        mode: whether the best is its "max" or its "min".
    """

    def __init__(self, folder: Path, figure: str, mode: str) -> None:
        super().__init__(folder, filename="best", monitor=figure, mode=mode, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if there was validation."""
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, if validation had images."""
        if self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
