"""Weights that other projects saved with torch.save, read without running code from them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqzoo.errors import WeightsError
from deqzoo.models import entry
from deqzoo.zoo.checkpoint import read_plain
from deqzoo.zoo.key_maps import translated
from deqzoo.zoo.layout import classifier_name
from deqzoo.zoo.stored import Stored

SUFFIXES = (".pth", ".pt", ".tar", ".pkl")
_NESTS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPER = "module."  # of DataParallel and DistributedDataParallel


def open_foreign(path: Path, name: str) -> Stored:
    """Reads a state dict of another project for a model of ours of the same architecture.

    Args:
        path: the file; `deqzoo.zoo.key_maps` says which layouts are known.
        name: canonical name of the model.

    Raises:
        WeightsError: if the file is damaged, holds more than data, or no layout is known for the model.
    """
    tensors = _state_dict(read_plain(path), path)
    with torch.random.fork_rng(devices=[]):
        net: Any = entry(name).build()
    fitted = translated(tensors, net, str(path))
    head = fitted.get(f"{classifier_name(net)}.weight")
    return Stored(
        name=name,
        tensors=fitted,
        origin=str(path),
        num_classes=None if head is None or head.ndim != 2 else len(head),
    )


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{path} holds no state dict: names with tensors, alone or under {', '.join(_NESTS)}. Save "
            "`net.state_dict()` of it in the project that it is from."
        )
    return {str(key).removeprefix(_WRAPPER): value for key, value in content.items()}
