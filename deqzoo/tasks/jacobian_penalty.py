"""Keeping equilibria easy to solve while a network learns."""

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deqzoo.nn import ImplicitModule, equilibria
from deqzoo.stability import jacobian_penalty
from deqzoo.tasks.base import Task
from deqzoo.tree import detached


class JacobianPenalty(Callback):
    """Adds γ ‖J‖²_F / N, averaged over a batch, to the loss of some training batches (Bai, Koltun & Kolter 2021,
    "Stabilizing equilibrium models by Jacobian regularization", equation 7).

    J is the Jacobian of each cell at its equilibrium, of length N. Without it, training tends to make solves longer
    and longer, until they do not end any more. Logged as train/jacobian, without γ.

    Args:
        weight: γ.
        probability: of a batch to be penalised; drawn from torch's generator, which runs resume with.
    """

    def __init__(self, *, weight: float = 1.0, probability: float = 0.1) -> None:
        if not weight > 0 or not 0 < probability <= 1:
            raise ValueError(
                f"JacobianPenalty got weight={weight} and probability={probability}. The weight is positive and the "
                "probability in (0, 1]: leave the callback away for no penalty."
            )
        self.weight = weight
        self.probability = probability
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Arranges for the penalty, in some of the batches.

        Raises:
            ValueError: if there is no equilibrium.
        """
        assert isinstance(pl_module, Task)
        modules = [module for module in equilibria(pl_module).values() if isinstance(module, ImplicitModule)]
        if not modules:
            raise ValueError(
                f"{type(pl_module.net).__name__} has no equilibrium, whose Jacobian could be penalised: leave "
                "JacobianPenalty away."
            )
        if torch.rand(()) < self.probability:
            self._hooks = [m.register_forward_hook(partial(self._penalise, pl_module)) for m in modules]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leaves the network as it was."""
        self._remove()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the network as it was after a batch that the task skipped."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the network as it was after a batch that was cut short."""
        self._remove()

    def _remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _penalise(self, task: Task, module: nn.Module, injection: tuple[Any, ...], z: Any) -> None:
        assert isinstance(module, ImplicitModule)
        # Not the cell itself: that may be compiled, and compiled maps have no second derivative.
        penalty: Tensor = jacobian_penalty(module.cell.forward, detached(z), *injection).mean()
        task.log("train/jacobian", penalty.detach(), batch_size=1)
        task.penalties.append(self.weight * penalty)
