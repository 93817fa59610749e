"""What training does when it goes wrong."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from deqzoo.errors import DivergedError
from deqzoo.nn import Observed
from deqzoo.solution import Status
from deqzoo.tasks.diagnosis import RecentSolves, diagnose, nonfinite_buffers
from deqzoo.tasks.on_its_way import OnItsWay
from deqzoo.tasks.sharded import Sharded

if TYPE_CHECKING:
    from deqzoo.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one training batch leaves to be looked at after its backward pass."""

    index: int
    images: Tensor | None
    seen: Observed
    loss: OnItsWay


class DivergenceGuard(Callback):
    """Stops training, with a diagnosis, when its loss is NaN or infinite; every task has this one by default.

    In a recipe it can be told to leave such batches out, and to stop for solves that fail batch after batch. Both look
    at every batch, which makes the device wait once a step. Over several processes they are decided by all.

    Args:
        skip: the most batches in a row whose gradients are dropped because the loss or a gradient is NaN or infinite;
            one more stops the run. Their statistics, of BatchNorm say, are not taken back: NaN there stops it too.
            In half precision ("16-mixed") gradients that overflow are the scaler's to leave out, and do not count.
        residual: above which a solve failed. Where those of more than half of a batch did, the batch failed. None for
            never.
        patience: the batches in a row whose solves may fail; one more stops the run.
        drop: whether the gradients of batches whose solves failed are dropped until then.
    """

    def __init__(self, *, skip: int = 0, residual: float | None = None, patience: int = 20, drop: bool = False) -> None:
        if drop and residual is None:
            raise ValueError("DivergenceGuard got drop=True and residual=None. No solve fails then: correct the value.")
        if skip < 0 or patience < 0 or (residual is not None and not residual > 0):
            raise ValueError(
                f"DivergenceGuard got skip={skip}, residual={residual}, patience={patience}. Numbers of batches are 0 "
                "or more and a residual is positive, or None to look at none: correct the value."
            )
        self.skip = skip
        self.residual = residual
        self.patience = patience
        self.drop = drop
        self._skipped = self._failed = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the place of the task's own guard."""
        pl_module.guard = self  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]

    def judge(self, task: "Task", step: Step, recent: RecentSolves) -> None:
        """Looks at a batch after its backward pass, before the weights are changed.

        Raises:
            DivergedError: if training should not go on.
        """
        loss = step.loss.read()
        bad = not math.isfinite(loss)
        # A diagnosis of weights that are spread over processes needs all of these.
        if self.skip or isinstance(task.trainer.strategy, Sharded):
            bad = _anywhere(task, bad or not _gradients_are_finite(task))
        if bad:
            self._meet(task, step, recent, loss)
            return
        self._skipped = 0
        if self.residual is not None and step.seen.solutions:
            failed = _most_failed(step.seen, self.residual)
            self._failed = self._failed + 1 if _anywhere(task, failed) else 0
            if self._failed > self.patience:
                raise DivergedError(
                    f"The solves of {self._failed} batches in a row failed, the last of them batch {step.index} in "
                    f"epoch {task.current_epoch} (step {task.global_step}): more than half of the samples were above "
                    f"{self.residual:g}, and gradients of what is no equilibrium mean little. "
                    f"{_diagnosis(task, step, recent)} Regularise the Jacobian (deqzoo.tasks.JacobianPenalty), lower "
                    "the learning rate, or give the solver more steps. --ckpt_path last resumes."
                )
            if self._failed and self.drop:
                rank_zero_warn(
                    f"The solves of batch {step.index} in epoch {task.current_epoch} (step {task.global_step}) failed: "
                    f"its gradients are dropped, the {self._failed}. in a row of at most {self.patience}. "
                    f"{_diagnosis(task, step, recent)}"
                )
                _drop_gradients(task)

    def _meet(self, task: "Task", step: Step, recent: RecentSolves, loss: float) -> None:
        what = "loss" if not math.isfinite(loss) else "gradient, or another process's,"
        found = (
            f"The {what} of batch {step.index} in epoch {task.current_epoch} (step {task.global_step}) is "
            f"{loss if not math.isfinite(loss) else 'NaN or infinite'}, and training on would spread it to all "
            f"weights. {_diagnosis(task, step, recent)}"
        )
        if self._skipped >= self.skip or nonfinite_buffers(task.net):
            first = "Lower" if step.images is None else "Mend the images if it is them; else lower"
            raise DivergedError(
                f"{found} {first} the learning rate or clip gradients (--trainer.gradient_clip_val 1). --ckpt_path "
                "last resumes."
            )
        self._skipped += 1
        _drop_gradients(task)
        rank_zero_warn(f"{found} Its gradients are dropped, the {self._skipped}. in a row of at most {self.skip}.")


def _diagnosis(task: "Task", step: Step, recent: RecentSolves) -> str:
    with task.trainer.precision_plugin.forward_context():
        return diagnose(task.net, step.images, step.seen, recent)


def _most_failed(seen: Observed, residual: float) -> bool:
    """Whether a solve of more than half of the samples met NaN or has a larger residual. Fixed steps have none."""
    solves = [solution.stats for _, solution in seen.solutions]
    failed = torch.stack([(s.residual > residual) | (s.status == Status.NONFINITE) for s in solves]).any(0)
    return 2 * int(failed.sum()) > len(failed)


def _drop_gradients(task: "Task") -> None:
    if _scaler(task) is not None:
        # A scaler leaves out what is not finite, and takes it for a mistake if there is nothing to look at.
        for gradient in _gradients(task):
            gradient.fill_(torch.inf)
        return
    for parameter in task.parameters():
        parameter.grad = None


def _gradients(task: "Task") -> list[Tensor]:
    return [p.grad for p in task.parameters() if p.grad is not None]


def _gradients_are_finite(task: "Task") -> bool:
    gradients = _gradients(task)
    if not gradients or bool(nn.utils.get_total_norm(gradients).isfinite()):
        return True
    # Those that overflowed for being scaled are left out, and the scale is lowered, without us.
    scaler = _scaler(task)
    return scaler is not None and scaler.get_scale() > 1


def _scaler(task: "Task") -> Any:
    """The scaler of losses in half precision, None in any other."""
    return getattr(task.trainer.precision_plugin, "scaler", None)


def _anywhere(task: "Task", flag: bool) -> bool:
    """Whether any process has the flag set, which all have to agree on."""
    if task.trainer.world_size == 1:
        return flag
    return bool(task.trainer.strategy.reduce(torch.tensor(float(flag), device=task.device), reduce_op="sum"))
