"""An average of the weights over the course of training."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


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

    def spread(self, mesh: DeviceMesh) -> None:
        """Spreads the average over devices as the network itself is."""
        if self._average_model is not None:
            fully_shard(self._average_model.module.net, mesh=mesh)  # pyright: ignore

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the average to the device of the weights. How often it was updated stays with the host, which asks."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)
        self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the weights back. After a forward pass alone FSDP leaves them gathered, which the average is not."""
        for module in pl_module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the average, whole, in the process that saves."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        state = checkpoint["state_dict"]
        for name, value in state.items():
            if isinstance(value, DTensor):
                whole = value.full_tensor()
                state[name] = whole.cpu() if trainer.is_global_zero else None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores average and weights to train on; evaluation takes the average as any other weights."""
        if self._average_model is None:
            return
        if "state_dict" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            return
        # Weights that are spread were loaded already, and dropped from the checkpoint: the module holds the average.
        self._average_model.module.load_state_dict(pl_module.state_dict())
        if "current_model_state" not in checkpoint:
            rank_zero_warn("The checkpoint has no average of the weights: it begins with the weights themselves.")
        else:
            self._average_model.load_state_dict(checkpoint["averaging_state"], strict=False)
            whole = StateDictOptions(full_state_dict=True)
            set_model_state_dict(pl_module, checkpoint["current_model_state"], options=whole)


@torch.no_grad()
def _update(decay: float, averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor) -> None:
    """Updates tensors of one dtype in place, without reading `num_averaged` (scalar) from its device."""
    keep = ((1 + num_averaged) / (10 + num_averaged)).clamp(max=decay)
    for average, weight in zip(averages, weights, strict=True):
        if average.is_floating_point():
            _local(average).lerp_(_local(weight), (1 - keep).to(average.dtype))
        else:
            average.copy_(weight)


def _local(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that is here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
