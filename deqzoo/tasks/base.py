"""What all tasks share: how to optimise, what to look at before the weights change, what solves cost."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import ParamsT

from deqzoo.errors import DeqzooError
from deqzoo.nn.observe import Observed
from deqzoo.tasks.diagnosis import RecentSolves
from deqzoo.tasks.divergence import DivergenceGuard, Step
from deqzoo.tasks.on_its_way import OnItsWay
from deqzoo.tasks.param_groups import weight_decay_groups
from deqzoo.tasks.schedules import Schedule
from deqzoo.tasks.slow_precision import keep_muon_fast, warn_if_slow
from deqzoo.tasks.solver_report import backward_figures, forward_figures
from deqzoo.zoo.checkpoint import identity


class Task(LightningModule, abc.ABC):
    """A network in training: a subclass says what its loss is, and calls `watch` with it.

    Args:
        net: the network.
        optimizer: makes the optimizer from parameter groups, those of `weight_decay_groups`.
        schedule: of the learning rate, stepped with the optimizer; None keeps it constant.

    Attributes:
        best: the logged figure that tells the best epoch, and whether that is its "max" or its "min".
        penalties: of the batch that is being trained on; whoever regularises appends to them.
        guard: what to do when training goes wrong.
    """

    best: ClassVar[tuple[str, str]]

    def __init__(
        self,
        net: nn.Module,
        *,
        optimizer: Callable[[ParamsT], Optimizer] = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.penalties: list[Tensor] = []
        self.guard = DivergenceGuard()
        self._step: Step | None = None
        self._recent = RecentSolves()

    def watch(self, loss: Tensor, seen: Observed, *, index: int, images: Tensor | None = None) -> Tensor:
        """Keeps what `on_after_backward` looks at, and returns the loss with its penalties.

        Args:
            loss: of a batch.
            seen: the solves that gave it.
            index: of the batch.
            images: in it, (B, …), if it has images.
        """
        total = sum(self.penalties, loss)
        self.penalties.clear()
        self._step = Step(index=index, images=images, seen=seen, loss=OnItsWay(total))
        return total

    def setup(self, stage: str) -> None:
        """Says so at once if the trainer's precision would make whoever trains or evaluates wait.

        A subclass with a `setup` of its own calls this one.
        """
        warn_if_slow(self.trainer)

    def on_fit_start(self) -> None:
        """Leaves the eval mode that `deqzoo.load` gives. In training mode, parts that are in eval stay so."""
        if not self.training:
            self.train()

    def on_validation_epoch_start(self) -> None:
        """Makes all processes evaluate the same network, the one that is saved."""
        self._take_statistics_of_first_process()

    def on_test_epoch_start(self) -> None:
        """Makes all processes evaluate the same network."""
        self._take_statistics_of_first_process()

    def _take_statistics_of_first_process(self) -> None:
        """Copies what each process gathers from its own batches: running means of BatchNorm, say."""
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Says beside the weights which network they are of, so that `deqzoo.load` takes the file by itself."""
        checkpoint.update(identity(self.net))

    def on_train_start(self) -> None:
        """Goes to the batch at which a checkpoint within an epoch was saved."""
        # Whoever asks for the number of steps, as schedules do, has the batches made before the checkpoint is read; and
        # Lightning tells their position only to those that it makes afterwards.
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Keeps what a diagnosis would need."""
        self._recent.watch(self.net)

    def on_after_backward(self) -> None:
        """Looks at the loss before the weights are changed, and logs what the solves cost, the backward ones too.

        Raises:
            DivergedError: if training went wrong, as `guard` sees it.
        """
        step, self._step = self._step, None
        assert step is not None
        try:
            self.guard.judge(self, step, self._recent)
        finally:
            self._recent.forget()
        if self._logs_this_step:
            self.log_figures("train/", forward_figures(step.seen))
            self.log_figures("train/backward_", backward_figures(step.seen))
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimizer, and the schedule over the steps that the trainer will take.

        Raises:
            DeqzooError: if there is a schedule and the trainer has no end.
        """
        optimizer = self.make_optimizer(weight_decay_groups(self.net))
        keep_muon_fast(optimizer, self)
        if self.schedule is None:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise DeqzooError(
                f"The trainer has no end, and {self.schedule} spreads over a whole run. Set "
                "--trainer.max_epochs or --trainer.max_steps, or take no schedule."
            )
        scheduler = self.schedule.attach(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def log_figures(self, prefix: str, figures: Mapping[str, Tensor], *, batch_size: int | None = None) -> None:
        """Logs figures of a batch, over all processes and, in evaluation, batches: every sample has the same weight."""
        if batch_size is not None:
            # Lightning averages the number of samples over processes in whole numbers: 12 and 11 would make 11.
            batch_size *= self.trainer.world_size
        for key, value in figures.items():
            reduction = "max" if key.endswith("_max") else "mean"
            self.log(prefix + key, value, reduce_fx=reduction, batch_size=batch_size, sync_dist=True)

    @property
    def _logs_this_step(self) -> bool:
        """Whether the trainer writes this step's figures: others would be computed for nothing."""
        # Lightning sets the attribute from outside of the class, where type checkers do not see it.
        interval: Any = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return interval > 0 and (self.global_step + 1) % interval == 0
