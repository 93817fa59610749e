"""Keeping equilibria easy to solve while a network learns."""

import abc
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deqzoo.nn import ImplicitModule, equilibria
from deqzoo.stability import dominant_growth, jacobian_penalty
from deqzoo.tasks.base import Task
from deqzoo.tasks.for_one_batch import ForOneBatch
from deqzoo.tree import detached


class EquilibriumPenalty(ForOneBatch, abc.ABC):
    """Adds something about each equilibrium to the loss of some training batches.

    Without it, training tends to make solves longer and longer, until they do not end any more.

    Args:
        weight: γ, what the penalty is multiplied by.
        probability: of a batch to be penalised; drawn from torch's generator, which runs resume with.
        start: share of the run's steps after which there is a penalty.
        end: share of the run's steps after which there is none.
    """

    def __init__(self, *, weight: float, probability: float, start: float, end: float) -> None:
        super().__init__(start=start, end=end)
        if not weight > 0 or not 0 < probability <= 1:
            raise ValueError(
                f"{type(self).__name__} got weight={weight} and probability={probability}. The weight is positive and "
                "the probability in (0, 1]: leave the callback away for no penalty."
            )
        self.weight = weight
        self.probability = probability
        self._hooks: list[RemovableHandle] = []

    @abc.abstractmethod
    def penalty(self, task: Task, module: ImplicitModule, z: Any, injection: tuple[Any, ...]) -> Tensor:
        """Returns the penalty of an equilibrium z of `module`, without γ, and logs what there is to know."""

    def do(self, task: LightningModule) -> None:
        """Arranges for the penalty, in some of the batches.

        Raises:
            ValueError: if there is no equilibrium.
        """
        assert isinstance(task, Task)
        modules = [module for module in equilibria(task).values() if isinstance(module, ImplicitModule)]
        if not modules:
            raise ValueError(
                f"{type(task.net).__name__} has no equilibrium that could be penalised: leave "
                f"{type(self).__name__} away."
            )
        if torch.rand(()) < self.probability:
            self._hooks = [m.register_forward_hook(partial(self._penalise, task)) for m in modules]

    def undo(self) -> None:
        """Takes the hooks of the batch away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _penalise(self, task: Task, module: nn.Module, injection: tuple[Any, ...], z: Any) -> None:
        assert isinstance(module, ImplicitModule)
        task.penalties.append(self.weight * self.penalty(task, module, detached(z), injection))


class JacobianPenalty(EquilibriumPenalty):
    """Adds γ ‖J‖²_F / N, averaged over a batch (Bai, Koltun & Kolter 2021, "Stabilizing equilibrium models by Jacobian
    regularization", equation 7).

    J is the Jacobian of each cell at its equilibrium, of length N. Logged as train/jacobian, without γ.

    Args:
        weight: γ.
        probability: of a batch to be penalised.
        start: share of the run's steps after which there is a penalty.
        end: share of the run's steps after which there is none.
    """

    def __init__(self, *, weight: float = 1.0, probability: float = 0.1, start: float = 0.0, end: float = 1.0) -> None:
        super().__init__(weight=weight, probability=probability, start=start, end=end)

    def penalty(self, task: Task, module: ImplicitModule, z: Any, injection: tuple[Any, ...]) -> Tensor:
        # Not the cell itself: that may be compiled, and compiled maps have no second derivative.
        penalty = jacobian_penalty(module.cell.forward, z, *injection).mean()
        task.log("train/jacobian", penalty.detach(), batch_size=1)
        return penalty


class GrowthPenalty(EquilibriumPenalty):
    """Adds γ max(0, g − τ)², averaged over a batch, with g the factor by which a cell enlarges the worst disturbance of
    its equilibrium (`deqzoo.stability.dominant_growth`).

    Plain iteration converges by g per step, and not at all from 1 on. A network is free below τ. Logged as
    train/growth: the largest g of a batch.

    Args:
        weight: γ.
        target: τ.
        probability: of a batch to be penalised.
        start: share of the run's steps after which there is a penalty.
        end: share of the run's steps after which there is none.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        target: float = 0.8,
        probability: float = 0.25,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        super().__init__(weight=weight, probability=probability, start=start, end=end)
        if not 0 < target < 1:
            raise ValueError(f"GrowthPenalty got target={target}. Solves converge below 1: use target=0.8, say.")
        self.target = target

    def penalty(self, task: Task, module: ImplicitModule, z: Any, injection: tuple[Any, ...]) -> Tensor:
        growth = dominant_growth(module.cell, z, *injection)
        task.log("train/growth", growth.detach().amax(), batch_size=1)
        return (growth - self.target).relu().square().mean()
