"""The learning rate belongs to a batch, whoever shares it."""

import math
from collections.abc import Callable
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from deqzoo.errors import DataError
from deqzoo.tasks.base import Task

Rule = Literal["same", "linear", "sqrt", "warn"]
_EXPONENTS = {"linear": 1.0, "sqrt": 0.5}


class GlobalBatch(Callback):
    """Says which batch, over all processes and accumulated parts, the learning rate of a recipe is for.

    The batch that a run has is the batch size of its data, which is each process's, times processes, times
    `accumulate_grad_batches`. Where that is another one, the rule decides:

    - "same": each process takes an equal share of `size`. Steps and results are those of the recipe.
    - "linear": the learning rate is multiplied by the ratio of the two (Goyal et al. 2017, arXiv 1706.02677), as fits
      SGD. There are fewer or more steps; the schedule spreads over them.
    - "sqrt": by the root of the ratio, as fits Adam.
    - "warn": nothing is changed, and a warning says so.

    A run that is resumed goes on with the learning rate that it began with.

    Args:
        size: samples, or windows of a text, per optimizer step.
        rule: see above.
    """

    def __init__(self, size: int, *, rule: Rule = "same") -> None:
        if size < 1 or rule not in ("same", "linear", "sqrt", "warn"):
            raise ValueError(
                f"GlobalBatch got size={size}, rule={rule!r}. A batch has one sample at least, and the rule is same, "
                "linear, sqrt or warn: correct the value."
            )
        self.size = size
        self.rule: Rule = rule

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Applies the rule before the batches and the optimizer are made.

        Raises:
            DataError: if the batch cannot be shared equally.
        """
        if stage != "fit":
            return
        # Lightning sets the attribute from outside of the class, where type checkers do not see it.
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        shares = trainer.world_size * trainer.accumulate_grad_batches
        actual = data.batch_size * shares
        if actual == self.size:
            return
        found = (
            f"The learning rate is for {self.size} samples per step, and {trainer.world_size} process(es) with batches "
            f"of {data.batch_size}, {trainer.accumulate_grad_batches} per step, make {actual}"
        )
        if self.rule == "same":
            if self.size % shares:
                raise DataError(
                    f"{found}, which cannot be shared equally. Every process takes the same number: change "
                    "--trainer.devices or --trainer.accumulate_grad_batches to a divisor, or the rule of GlobalBatch."
                )
            data.batch_size = self.size // shares
            rank_zero_warn(f"{found}: batches are of {data.batch_size} instead, and the run is that of the recipe.")
        elif self.rule == "warn":
            rank_zero_warn(f"{found}. Nothing is changed: scale the learning rate, or take another rule.")
        else:
            assert isinstance(pl_module, Task)
            factor = (actual / self.size) ** _EXPONENTS[self.rule]
            pl_module.make_optimizer = _Scaled(pl_module.make_optimizer, factor)
            steps = _ratio(self.size, actual)
            rank_zero_warn(f"{found}: it is multiplied by {factor:.4g}, and there are {steps} steps.")


class _Scaled:
    """Makes an optimizer with another learning rate. A task that is fitted again is scaled anew, not twice."""

    def __init__(self, make: Callable[[ParamsT], Optimizer], factor: float) -> None:
        self._make = make._make if isinstance(make, _Scaled) else make
        self._factor = factor

    def __call__(self, parameters: ParamsT) -> Optimizer:
        optimizer = self._make(parameters)
        for group in optimizer.param_groups:
            group["lr"] *= self._factor
        return optimizer


def _ratio(size: int, actual: int) -> str:
    common = math.gcd(size, actual)
    return f"{size // common}/{actual // common} as many"
