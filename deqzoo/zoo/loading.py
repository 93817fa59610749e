"""`create_model` and `load`: from a name to a network, and to a model that can be used and trained."""

import importlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from deqzoo.errors import UnknownModelError, WeightsError
from deqzoo.models import ModelEntry, entry
from deqzoo.models.text_spec import TEXT_GENERATION
from deqzoo.nn import AnyAdjoint, AnySolver, set_runtime
from deqzoo.zoo.adapt import adapted_channels, without_head
from deqzoo.zoo.layout import classifier_name, first_layer, fitted_cfg, pretrained_cfg
from deqzoo.zoo.stored import Stored, open_published, open_stored
from deqzoo.zoo.tensors import load_tensors
from deqzoo.zoo.text_loading import restored_text

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

_log = logging.getLogger(__name__)

# The one upward reference of the package: the zoo wraps a network in its task, which lies above it.
_TASKS = {
    "image-classification": ("deqzoo.tasks", "ImageClassifier"),
    TEXT_GENERATION: ("deqzoo.tasks", "LanguageModel"),
}


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    vocab_size: int | None = None,
    solver: AnySolver | None = None,
    adjoint: AnyAdjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
) -> nn.Module:
    """Returns the network of a name, with timm's `pretrained_cfg`, in training mode.

    Args:
        name: of a model, in any spelling: "pcdeq-mnist" is "PcDEQ_MNIST".
        pretrained: whether it gets its published weights.
        num_classes: logits to give, with a fresh head if the weights have another number; 0 for features.
        in_chans: channels of the images; the weights of the first layer are adapted.
        vocab_size: tokens of an untrained language model.
        solver: how equilibria are found, in place of the model's own solver.
        adjoint: how gradients pass them, likewise.
        max_steps: budget of the solver.
        rtol: relative tolerance of the solver.

    Raises:
        UnknownModelError: if there is no such name.
        WeightsError: if pretrained weights are wanted and missing, or not as published.
        ValueError: for a size that the model does not have, or that its weights fix.
    """
    _check_sizes(num_classes, in_chans)
    found = entry(name)
    if vocab_size is not None and (pretrained or found.task != TEXT_GENERATION):
        raise ValueError(
            f"Got vocab_size={vocab_size} for {found.name}{', pretrained' if pretrained else ''}. Only language models "
            "have a vocabulary, and trained ones have their own: leave it out."
        )
    if pretrained:
        net = _restored(open_published(found.name), num_classes, in_chans)
    else:
        net = _built(found.name, num_classes, in_chans, vocab_size)
    set_runtime(net, solver=solver, adjoint=adjoint, max_steps=max_steps, rtol=rtol)
    return net


def load(
    name_or_path: str | Path,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    solver: AnySolver | None = None,
    adjoint: AnyAdjoint | None = None,
    max_steps: int | None = None,
    rtol: float | None = None,
) -> "LightningModule":
    """Returns a pretrained model in eval mode: call it on a batch, or train it further.

    `.net` is the network, `.transform` turns PIL images into its inputs.

    Args:
        name_or_path: a name in any spelling; "hf-hub:org/name[@revision]"; a folder with model.safetensors
            and config.json; a Lightning checkpoint of a task, or the folder of its run.
        num_classes: logits to give, with a fresh head if the weights have another number; 0 for features.
        in_chans: channels of the images; the weights of the first layer are adapted.
        solver: how equilibria are found, in place of the model's own solver.
        adjoint: how gradients pass them, likewise.
        max_steps: budget of the solver.
        rtol: relative tolerance of the solver.

    Raises:
        UnknownModelError: if there is no such name.
        WeightsError: if the weights are missing, damaged, changed or of another model.
    """
    stored, net = _opened(name_or_path, num_classes, in_chans)
    set_runtime(net, solver=solver, adjoint=adjoint, max_steps=max_steps, rtol=rtol)
    module, task = _TASKS[entry(stored.name).task]
    return getattr(importlib.import_module(module), task)(net).eval()


def load_network(name_or_path: str | Path, *, num_classes: int | None = None, in_chans: int | None = None) -> nn.Module:
    """Returns the network of what `load` takes, with its weights, in training mode. Needs no Lightning."""
    return _opened(name_or_path, num_classes, in_chans)[1]


def restore(stored: Stored) -> nn.Module:
    """Returns the network of weights that were read, in training mode."""
    return _restored(stored, None, None)


def _opened(name_or_path: str | Path, num_classes: int | None, in_chans: int | None) -> tuple[Stored, nn.Module]:
    _check_sizes(num_classes, in_chans)
    stored = open_stored(name_or_path)
    return stored, _restored(stored, num_classes, in_chans)


def _check_sizes(num_classes: int | None, in_chans: int | None) -> None:
    for name, size in (("num_classes", num_classes), ("in_chans", in_chans)):
        if size is not None and not isinstance(size, int):
            raise ValueError(f"Got {name}={size!r}, a {type(size).__name__}. It is a number of things: use an int.")
    if num_classes is not None and num_classes < 0:
        raise ValueError(f"Got num_classes={num_classes}. Use a positive number, or 0 for pooled features.")
    if in_chans is not None and in_chans < 1:
        raise ValueError(f"Got in_chans={in_chans}. Images have at least one channel: use 1 for grey, 3 for RGB.")


def _built(name: str, num_classes: int | None, in_chans: int | None, vocab_size: int | None = None) -> Any:
    found = entry(name)
    _check_has_classes(found, num_classes, in_chans)
    wanted = {"num_classes": num_classes, "in_chans": in_chans, "vocab_size": vocab_size}
    sizes = {k: v for k, v in wanted.items() if v is not None}
    net: Any = found.build(**sizes)
    net.pretrained_cfg = pretrained_cfg(found, net)
    return net


def _restored(stored: Stored, num_classes: int | None, in_chans: int | None) -> nn.Module:
    try:
        found = entry(stored.name)
    except UnknownModelError as error:
        raise WeightsError(
            f"{stored.origin} holds weights of {stored.name!r}, a model that this version does not have: {error}"
        ) from error
    if found.task == TEXT_GENERATION:
        _check_has_classes(found, num_classes, in_chans)
        return restored_text(stored, found)
    with torch.random.fork_rng(devices=[]):
        own = _built(found.name, None, None)
        claims = stored.num_classes, stored.in_chans
        if any(claim not in (None, size) for claim, size in zip(claims, (own.num_classes, own.in_chans), strict=True)):
            _check_claims(stored, own)
            own = _built(found.name, *claims)
    load_tensors(own, stored.tensors, stored.origin)
    named = {"label_names": stored.label_names} if stored.label_names else {}
    cfg = stored.pretrained_cfg or {**own.pretrained_cfg, **named}
    _check_size(stored.origin, cfg, own.pretrained_cfg)
    net = own
    if num_classes not in (None, own.num_classes) or in_chans not in (None, own.in_chans):
        # The user's generator is only drawn from for what stays random: a fresh head.
        with torch.random.fork_rng(devices=[], enabled=num_classes is None):
            net = _built(
                found.name,
                own.num_classes if num_classes is None else num_classes,
                own.in_chans if in_chans is None else in_chans,
            )
    if net is own:
        net.pretrained_cfg = cfg
        return net
    tensors = dict(stored.tensors)
    if net.in_chans != own.in_chans:
        tensors = adapted_channels(tensors, own, net)
        _log.warning(
            "%s: the first layer %r of %d channels was adapted to %d.",
            stored.name, cfg["first_conv"], own.in_chans, net.in_chans,
        )  # fmt: skip
    if net.num_classes != own.num_classes:
        tensors = without_head(tensors, net)
        _log.warning(
            "%s: the head %r of %d classes was replaced by %s.",
            stored.name, cfg["classifier"], own.num_classes,
            f"a fresh random one of {net.num_classes}: train it before use" if net.num_classes else "the "
            "identity",
        )  # fmt: skip
    load_tensors(net, tensors, stored.origin)
    net.pretrained_cfg = fitted_cfg(cfg, num_classes=net.num_classes, in_chans=net.in_chans)
    return net


def _check_has_classes(found: ModelEntry, num_classes: int | None, in_chans: int | None) -> None:
    if found.task == TEXT_GENERATION and (num_classes, in_chans) != (None, None):
        raise ValueError(
            f"Got num_classes={num_classes}, in_chans={in_chans} for {found.name}. A language model has neither "
            "classes nor channels: leave them out."
        )


def _check_claims(stored: Stored, net: Any) -> None:
    """Checks the sizes that weights are said to have against their tensors, before memory is taken for them.

    Args:
        stored: the weights.
        net: their network with the sizes of its configuration.
    """
    head, first = f"{classifier_name(net)}.weight", f"{first_layer(net)}.weight"
    usual, shapes = net.state_dict(), {key: tensor.shape for key, tensor in stored.tensors.items()}
    if stored.num_classes not in (None, 0, net.num_classes) and head in usual:
        _check_claim(stored, head, shapes.get(head), (stored.num_classes, *usual[head].shape[1:]))
    if stored.in_chans not in (None, net.in_chans) and first in usual:
        width, columns, *taps = usual[first].shape
        _check_claim(stored, first, shapes.get(first), (width, columns * stored.in_chans // net.in_chans, *taps))


def _check_claim(stored: Stored, key: str, found: tuple[int, ...] | None, wanted: tuple[int, ...]) -> None:
    if found is None or tuple(found) != wanted:
        shape = "missing" if found is None else f"of shape {tuple(found)}"
        raise WeightsError(
            f"The weights in {stored.origin} are said to have num_classes={stored.num_classes} and "
            f"in_chans={stored.in_chans}, but {key} is {shape} and should then be of {wanted}. The "
            "description belongs to the weights: export or download both again."
        )


def _check_size(origin: str, cfg: dict[str, Any], own: dict[str, Any]) -> None:
    if own and list(cfg["input_size"]) != list(own["input_size"]):
        raise WeightsError(
            f"The weights in {origin} are described for inputs of {cfg['input_size']}, and their network takes "
            f"{own['input_size']}. The description belongs to the weights: export or download both again."
        )
