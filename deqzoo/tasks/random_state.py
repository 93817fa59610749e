"""Random numbers that survive an interruption."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Keeps the state of the random generators in checkpoints.

    A run that is resumed then draws what it would have drawn: dropout masks, mixup partners. This holds for a
    single process. With several, each has its own state and a checkpoint only that of the first: nothing is
    restored.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of the generators of Python, NumPy and torch, as lists and tensors."""
        name, keys, *rest = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": [name, np.asarray(keys).tolist(), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts, so that nothing in between draws from them."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores what was loaded."""
        loaded, self._loaded = self._loaded, None
        if loaded is None or trainer.world_size > 1:
            return
        version, internal, gauss = loaded["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(tuple(loaded["numpy"]))
        torch.set_rng_state(loaded["torch"].cpu())
        if loaded["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(loaded["cuda"].cpu())
