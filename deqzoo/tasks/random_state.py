"""Random numbers that survive an interruption."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Keeps the state of the random generators in checkpoints, those of every process.

    A run that is resumed with as many processes then draws what it would have drawn: dropout masks, mixup partners.
    With another number of them nothing is restored.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the generators of Python, NumPy and torch, as lists and tensors."""
        own = _states()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return own
        all_of_them: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(all_of_them, own)
        return {"processes": all_of_them}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts, so that nothing in between draws from them."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores what was loaded."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        of_processes = loaded.get("processes", [loaded])
        if len(of_processes) == trainer.world_size:
            _restore(of_processes[trainer.global_rank])


def _states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _restore(states: dict[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
