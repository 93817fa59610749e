"""What a run costs: time and memory, for its log and, later, its card."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RunCost(Callback):
    """Logs, after every epoch, the hours that training has taken so far and the most memory that it had.

    cost/hours counts on over interruptions. cost/peak_gib is that of the GPU where there is one, else of the process.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._started = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was spent."""
        # Of several processes, the most that one took.
        over_all: Any = {"reduce_fx": "max", "sync_dist": True}
        pl_module.log("cost/hours", self._hours(), **over_all)
        pl_module.log("cost/peak_gib", _peak_bytes(pl_module.device) / 2**30, **over_all)

    def state_dict(self) -> dict[str, Any]:
        """Returns the hours so far."""
        return {"hours": self._hours()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the hours of the run that is resumed."""
        self._before = float(state_dict["hours"])

    def _hours(self) -> float:
        return self._before + (time.monotonic() - self._started) / 3600


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
