"""config.json as it is read: checked once, then trusted. Whoever wrote it may be anyone on the Hub."""

import json
import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deqzoo.errors import WeightsError
from deqzoo.models import canonical
from deqzoo.models.vocabulary import MAX_TOKENS
from deqzoo.version import __version__
from deqzoo.zoo.layout import CONFIG_FILE, SCHEMA_VERSION, WEIGHTS_FILE

MAX_CLASSES, MAX_CHANNELS, MAX_SIDE = 1_000_000, 1024, 4096
"""Beyond what any image classifier has: a number above is a mistake, or meant to fill the memory."""
_HUGE = 1e9


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """What is used of a config.json.

    Attributes:
        name: canonical name of the configuration.
        num_classes: that the weights are for; None for language models.
        in_chans: likewise; None for models that take no images.
        pretrained_cfg: timm's description of inputs and outputs, or the like for language models, with their
            vocabulary.
        sha256: of the file of weights.
        size: of that file in bytes.
        results: measured figures.
    """

    name: str
    num_classes: int | None
    in_chans: int | None
    pretrained_cfg: dict[str, Any] | None
    sha256: str
    size: int
    results: dict[str, Any]


def read_config(folder: Path) -> WeightsConfig:
    """Returns the config.json in a folder.

    Raises:
        WeightsError: if it is missing, damaged, or not of this library.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{path} could not be read: {error.strerror or error}. A folder of weights has {WEIGHTS_FILE} and "
            f"{CONFIG_FILE}, as `deqzoo export` writes them: correct the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}. It should be JSON: export or download it again.") from error
    block = config.get("deqzoo") if isinstance(config, dict) else None
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        raise WeightsError(
            f"{path} does not say which model of deqzoo it belongs to. It needs deqzoo.name, as `deqzoo export` "
            "writes it: if these are weights of another library, load them there."
        )
    version = block.get("schema_version")
    if version != SCHEMA_VERSION:
        raise WeightsError(
            f"{path} has schema version {version!r}; deqzoo {__version__} reads version {SCHEMA_VERSION}. It was "
            "written by another version: upgrade deqzoo, or export the weights again."
        )
    origin = str(path)
    weights = _field(origin, block, "weights", is_object, "an object with sha256 and size")
    cfg = config.get("pretrained_cfg")
    num_classes = in_chans = None
    if "vocab_size" in config:
        _check_text_cfg(origin, cfg, _field(origin, config, "vocab_size", _is_vocab_size, _VOCAB_SIZE))
    else:
        num_classes = _field(origin, config, "num_classes", is_num_classes, NUM_CLASSES)
        in_chans = cfg["input_size"][0] if cfg and _check_cfg(origin, cfg, num_classes) else None
    return WeightsConfig(
        name=canonical(block["name"]),
        num_classes=num_classes,
        in_chans=in_chans,
        pretrained_cfg=cfg or None,
        sha256=_field(origin, weights, "sha256", _is_digest, "64 hexadecimal digits"),
        size=_field(origin, weights, "size", lambda v: _is_whole(v, 1, 1 << 50), "the length of the file in bytes"),
        results=_field(origin, block, "results", _is_flat, "an object of numbers, texts and nulls"),
    )


_VOCAB_SIZE = f"a whole number from 2 to {MAX_TOKENS:,}"
NUM_CLASSES = f"a whole number from 0 to {MAX_CLASSES:,}"
IN_CHANS = f"a whole number from 1 to {MAX_CHANNELS:,}"


def is_num_classes(value: Any) -> bool:
    """Whether `value` is a possible number of classes; 0 stands for features."""
    return _is_whole(value, 0, MAX_CLASSES)


def is_in_chans(value: Any) -> bool:
    """Whether `value` is a possible number of channels."""
    return _is_whole(value, 1, MAX_CHANNELS)


def is_object(value: Any) -> bool:
    """Whether `value` is an object of JSON."""
    return isinstance(value, dict)


def checked(origin: str, key: str, value: Any, holds: Callable[[Any], bool], rule: str) -> Any:
    """Returns `value`, which was found under `key` in the file `origin`, if it holds.

    Raises:
        WeightsError: with the rule, if not.
    """
    if not holds(value):
        raise WeightsError(
            f"{origin} is damaged: {key} is {reprlib.repr(value)}. It should be {rule}: take an undamaged copy."
        )
    return value


def _field(origin: str, block: dict[str, Any], key: str, holds: Callable[[Any], bool], rule: str) -> Any:
    return checked(origin, key, block.get(key), holds, rule)


def _check_cfg(origin: str, cfg: Any, num_classes: int) -> bool:
    """Checks timm's description as far as it is used. Returns True."""
    checked(origin, "pretrained_cfg", cfg, is_object, "an object")
    channels, *_ = _field(
        origin, cfg, "input_size", _is_input_size, f"[channels, height, width] up to {[MAX_CHANNELS, *[MAX_SIDE] * 2]}"
    )
    for key, low in (("mean", -_HUGE), ("std", 0.0)):
        rule = f"{channels} {'positive' if key == 'std' else 'finite'} number(s), one for each channel"
        _field(origin, cfg, key, lambda v, low=low: _are_numbers(v, channels, low), rule)
    for key in ("tag", "first_conv", "classifier"):
        _field(origin, cfg, key, lambda v: isinstance(v, str), "a text")
    _field(origin, cfg, "num_classes", lambda v: v == num_classes, f"num_classes of the whole, {num_classes}")
    if "label_names" in cfg:
        _field(origin, cfg, "label_names", lambda v: _are_texts(v, num_classes), f"a list of {num_classes} texts")
    return True


def _check_text_cfg(origin: str, cfg: Any, vocab_size: int) -> None:
    """Checks the description of a language model as far as it is used; its vocabulary is checked when it is read."""
    checked(origin, "pretrained_cfg", cfg, is_object, "an object")
    _field(origin, cfg, "tag", lambda v: isinstance(v, str), "a text")
    _field(origin, cfg, "vocab_size", lambda v: v == vocab_size, f"vocab_size of the whole, {vocab_size}")
    _field(origin, cfg, "vocabulary", lambda v: v is None or is_object(v), "an object")


def _is_vocab_size(value: Any) -> bool:
    return _is_whole(value, 2, MAX_TOKENS)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_input_size(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    return is_in_chans(value[0]) and all(_is_whole(side, 1, MAX_SIDE) for side in value[1:])


def _are_numbers(value: Any, count: int, low: float) -> bool:
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(v, int | float) and low < v < _HUGE for v in value)


def _are_texts(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(v, str) for v in value)


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_figure, value.values()))


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
