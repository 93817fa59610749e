"""The learning rate over a run."""

import abc
import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Schedule(abc.ABC):
    """The learning rate as a factor of the optimizer's own, over a run of any length."""

    @abc.abstractmethod
    def factor(self, progress: float) -> float:
        """Returns the factor at `progress`: 0 where the run starts, 1 where it ends."""

    def attach(self, optimizer: Optimizer, num_steps: int) -> LambdaLR:
        """Returns torch's scheduler, to be stepped after each of the run's `num_steps` optimizer steps.

        Step i, counted from 0, spans the progress from i/N to (i+1)/N and gets the factor at its middle:
        neither the first nor the last step is wasted on a rate of zero.
        """
        return LambdaLR(optimizer, lambda step: self.factor(min(1.0, (step + 0.5) / num_steps)))


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """Linear from 0 to 1 during the warm-up, then half a cosine down to `final`.

    Attributes:
        warmup: share of the run that the rise takes, in [0, 1).
        final: factor at the end, in [0, 1].
    """

    warmup: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < 1 and 0 <= self.final <= 1):
            raise ValueError(
                f"warmup = {self.warmup}, final = {self.final}. Both are shares, of the run and of the "
                "learning rate: choose warmup from [0, 1) and final from [0, 1]."
            )

    def factor(self, progress: float) -> float:
        """Returns the factor at `progress` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        descent = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * descent))
