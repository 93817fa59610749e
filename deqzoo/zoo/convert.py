"""Weights from one kind of file to another."""

from importlib import metadata
from pathlib import Path

import torch

from deqzoo.errors import WeightsError
from deqzoo.models import entry
from deqzoo.zoo.checkpoint import identity
from deqzoo.zoo.foreign import SUFFIXES, open_foreign
from deqzoo.zoo.loading import load_network, restore
from deqzoo.zoo.saving import save
from deqzoo.zoo.stored import open_stored


def convert(source: str | Path, destination: Path, *, name: str | None = None) -> None:
    """Writes weights as safetensors with their config.json, or as a checkpoint that Lightning and `load` read.

    Args:
        source: what `load` takes, or a state dict of another project (.pth, .pt, .tar, .pkl).
        destination: a folder, or a file that ends in .ckpt.
        name: of the model, which another project's file does not say.

    Raises:
        WeightsError: if the source cannot be read, does not fit, or a name is missing.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES:
        if name is None:
            raise WeightsError(
                f"{path} does not say which model it belongs to. Files of other projects hold tensors alone: say it "
                "with --name."
            )
        stored = open_foreign(path, entry(name).name)
        net = restore(stored)
    else:
        stored = open_stored(source)
        net = load_network(source)
    if destination.suffix == ".ckpt":
        write_checkpoint(net, destination)
    else:
        save(net, destination, name=stored.name)


def write_checkpoint(net: torch.nn.Module, path: Path) -> None:
    """Writes a network as a Lightning checkpoint of its task: plain data, without optimiser or loops.

    Args:
        net: that `create_model` made.
        path: the file to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "state_dict": {f"net.{key}": value.detach().cpu() for key, value in net.state_dict().items()},
            **identity(net),
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": metadata.version("lightning"),
        },
        path,
    )
