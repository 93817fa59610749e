"""Weights out of Lightning checkpoints, read without running code from them."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqzoo.errors import UnknownModelError, WeightsError
from deqzoo.models import entry
from deqzoo.zoo.run_log import RUN_CONFIG, RunLog, read_run
from deqzoo.zoo.weights_config import IN_CHANS, NUM_CLASSES, checked, is_in_chans, is_num_classes, is_object

_NET = "net."  # what tasks call their network


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run left.

    Attributes:
        name: the model's name, as the run was given it.
        tensors: state dict of the network.
        num_classes: if the run set it.
        in_chans: if the run set it.
        label_names: of the classes, if it had them.
        vocabulary: of a language model, as plain values.
        epochs: epochs that were completed.
        steps: optimiser steps that were taken.
        log: what the run wrote down.
    """

    name: str
    tensors: dict[str, Tensor]
    num_classes: int | None
    in_chans: int | None
    label_names: list[str] | None
    vocabulary: dict[str, Any] | None
    epochs: int
    steps: int
    log: RunLog


def find_checkpoint(folder: Path) -> Path:
    """Returns the last checkpoint of a run: last.ckpt, or the only one there is.

    Raises:
        WeightsError: if there is none, or it is not clear which one is meant.
    """
    found = sorted(folder.rglob("*.ckpt"))
    last = [path for path in found if path.name == "last.ckpt"]
    if len(last) == 1:
        return last[0]
    if len(found) == 1:
        return found[0]
    if not found:
        raise WeightsError(
            f"{folder} holds no weights: neither model.safetensors with config.json, nor a .ckpt of a run. "
            "Correct the path, or train first with `deqzoo fit`."
        )
    names = ", ".join(str(path.relative_to(folder)) for path in (last or found)[:4])
    raise WeightsError(f"{folder} holds {len(last or found)} checkpoints ({names}, …). One is loaded: give its path.")


def find_run(run: Path) -> Path:
    """Returns the checkpoint of a run's folder, or `run` if it is one."""
    return find_checkpoint(run) if run.is_dir() else run


def read_checkpoint(path: Path) -> Checkpoint:
    """Returns the network's weights in a checkpoint of a task, and the name that its run gave the network.

    The name is that of `identity`. Where it is missing, it is looked for in the hyperparameters inside, then in the
    run's config.yaml beside or above it.

    Raises:
        WeightsError: if it is damaged, holds more than data, or does not say whose weights it has.
    """
    content = read_plain(path)
    origin, content = str(path), content if isinstance(content, dict) else {}
    state = content.get("state_dict")
    named = {k: v for k, v in state.items() if str(k).startswith(_NET)} if isinstance(state, dict) else {}
    tensors = {str(k).removeprefix(_NET): v for k, v in named.items()}
    if not tensors or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise WeightsError(
            f"{path} has no network in it. A checkpoint of a deqzoo task holds tensors named {_NET}…: is it "
            "from another program?"
        )
    log = read_run(path)
    inside = content.get("network")
    known = inside if isinstance(inside, dict) and isinstance(inside.get("name"), str) else None
    made = known or next(_creations([content.get("hyper_parameters"), log.config]), None)
    if made is None:
        raise WeightsError(
            f"{path} does not say which model its weights belong to, and no {RUN_CONFIG} beside or above it "
            "names one with deqzoo.create_model. Keep the run's folder together, or load it with deqzoo.tasks."
            "ImageClassifier.load_from_checkpoint(path, net=deqzoo.create_model(name, num_classes=…)), its own number."
        )
    sizes = {
        key: checked(f"The run of {origin}", key, made[key], holds, rule)
        for key, holds, rule in (("num_classes", is_num_classes, NUM_CLASSES), ("in_chans", is_in_chans, IN_CHANS))
        if made.get(key) is not None
    }
    epoch = checked(origin, "epoch", content.get("epoch", -1), _is_count, "a whole number")
    return Checkpoint(
        name=made["name"],
        tensors=tensors,
        num_classes=sizes.get("num_classes"),
        in_chans=sizes.get("in_chans"),
        label_names=checked(
            origin, "label_names", content.get("label_names"), _are_names(sizes.get("num_classes")), "a text per class"
        ),
        vocabulary=checked(origin, "vocabulary", content.get("vocabulary"), _is_optional, "an object of plain values"),
        epochs=checked(origin, "epochs", _completed(content, epoch + 1), _is_count, "a whole number"),
        steps=checked(origin, "global_step", content.get("global_step", 0), _is_count, "a whole number"),
        log=log,
    )


def identity(net: Any) -> dict[str, Any]:
    """Returns what a checkpoint says of a network, in plain values.

    "network" holds name and sizes of one that `create_model` made; "label_names" and "vocabulary" are those of its
    `pretrained_cfg`, if it has them.
    """
    cfg = getattr(net, "pretrained_cfg", None)
    if not isinstance(cfg, Mapping):
        return {}
    known = {key: cfg[key] for key in ("label_names", "vocabulary") if key in cfg}
    try:
        name = entry(cfg.get("architecture") or "").name
    except UnknownModelError:
        return known
    sizes = {key: getattr(net, key) for key in ("num_classes", "in_chans") if hasattr(net, key)}
    return {"network": {"name": name, **sizes}, **known}


def read_plain(path: Path) -> Any:
    """Returns what torch.save put into a file, if that is plain data: nothing else is unpickled.

    Raises:
        WeightsError: if it is damaged, or holds more than data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} could not be read as plain data: {str(error).splitlines()[0]}. Checkpoints that hold "
            "objects could run code and are refused: save hyperparameters as plain values."
        ) from error
    except FileNotFoundError as error:
        raise WeightsError(f"There is no {path.absolute()}. Correct the path, or train first.") from error
    except Exception as error:  # what a damaged pickle raises is not specified
        earlier = path.with_name("previous.ckpt")
        other = f"{earlier}, of the epoch before" if path != earlier and earlier.is_file() else "an earlier one"
        raise WeightsError(
            f"{path} is no complete checkpoint "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). It was cut short or is "
            f"another kind of file: copy it again, or take {other}."
        ) from error


def _completed(content: dict[str, Any], default: int) -> Any:
    """Returns how many epochs Lightning's loops counted; `default` where they are not there."""
    node: Any = content.get("loops")
    for key in ("fit_loop", "epoch_progress", "total", "processed"):
        if not isinstance(node, dict) or key not in node:
            return default
        node = node[key]
    return node


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1


def _is_optional(value: Any) -> bool:
    return value is None or is_object(value)


def _are_names(number: int | None) -> Callable[[Any], bool]:
    def fit(value: Any) -> bool:
        texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return value is None or (texts and number in (None, len(value)))

    return fit


def _creations(node: Any, depth: int = 8) -> Iterator[dict[str, Any]]:
    """Yields the arguments of every call of `create_model` in a configuration, which may hold itself."""
    if not depth:
        return
    if isinstance(node, dict):
        arguments = node.get("init_args")
        if str(node.get("class_path", "")).endswith("create_model") and isinstance(arguments, dict):
            if isinstance(arguments.get("name"), str):
                yield arguments
            return
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _creations(part, depth - 1)
