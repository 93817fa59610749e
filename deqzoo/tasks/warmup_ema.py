"""An average of the weights over the course of training."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class WarmupEMA(WeightAveraging):
    """Exponential moving average of weights and buffers whose memory grows with the run.

    After each optimizer step, average ← d average + (1 − d) weights, with d = min(decay, (1 + t) / (10 + t))
    after t steps. A constant decay of 0.999 would still hold e⁻¹ of the random initial weights after 1000
    steps.

    Validation uses the average. In a checkpoint, `state_dict` is the average, and `current_model_state` the
    weights that training goes on with. After training, the module holds the average. Integer buffers are
    copied.

    Args:
        decay: d once t is large, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"decay = {decay}. An average has to forget at some rate: choose from [0, 1), such as 0.999."
            )
        super().__init__(use_buffers=True, multi_avg_fn=partial(_update, decay))
        self.decay = decay

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores average and weights to train on; evaluation takes the average as any other weights."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


@torch.no_grad()
def _update(decay: float, averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor) -> None:
    """Updates tensors of one dtype in place, without reading `num_averaged` (scalar) from its device."""
    keep = ((1 + num_averaged) / (10 + num_averaged)).clamp(max=decay)
    for average, weight in zip(averages, weights, strict=True):
        if average.is_floating_point():
            average.lerp_(weight, (1 - keep).to(average.dtype))
        else:
            average.copy_(weight)
