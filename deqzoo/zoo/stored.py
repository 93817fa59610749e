"""Weights that lie somewhere, read into memory but not yet in a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from deqzoo.errors import DamagedWeightsError, WeightsError
from deqzoo.models import canonical, entry
from deqzoo.zoo import manifest
from deqzoo.zoo.checkpoint import find_checkpoint, read_checkpoint
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE
from deqzoo.zoo.tensors import read_tensors
from deqzoo.zoo.weights_config import read_config

HUB_PREFIX = "hf-hub:"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Weights and what is needed to build their network.

    Attributes:
        name: canonical name of the configuration.
        tensors: the state dict.
        origin: where they come from, for messages.
        num_classes: that the weights are for; None for the configuration's own number.
        in_chans: likewise.
        pretrained_cfg: that they were stored with, if they were.
        label_names: of the classes, where there is no `pretrained_cfg` to name them.
        vocabulary: of a language model, likewise, as plain values.
    """

    name: str
    tensors: dict[str, Tensor]
    origin: str
    num_classes: int | None = None
    in_chans: int | None = None
    pretrained_cfg: dict[str, Any] | None = None
    label_names: list[str] | None = None
    vocabulary: dict[str, Any] | None = None


def open_stored(name_or_path: str | Path) -> Stored:
    """Reads the weights of a name, of a folder, of a checkpoint or of "hf-hub:org/name[@revision]".

    A name comes first: write ./name for a folder that is called like a model.

    Raises:
        UnknownModelError: if it is no name, and nothing lies there.
        WeightsError: if the weights are missing, damaged or changed.
    """
    text = str(name_or_path)
    if text.startswith(HUB_PREFIX):
        from deqzoo.zoo import hub

        return _open_hub(*hub.parse(text.removeprefix(HUB_PREFIX)))
    name, path = locate(name_or_path)
    if name is not None:
        return open_published(name)
    if path.is_dir() and not (path / CONFIG_FILE).is_file() and not (path / WEIGHTS_FILE).is_file():
        return _open_checkpoint(find_checkpoint(path))
    if path.is_dir():
        return open_folder(path)
    if path.is_file() and path.suffix == ".ckpt":
        return _open_checkpoint(path)
    found = "is a file of another kind" if path.is_file() else "does not exist"
    raise WeightsError(
        f"{path.absolute()} {found}. Weights come from the name of a model, a folder with {WEIGHTS_FILE} and "
        f"{CONFIG_FILE}, a Lightning .ckpt or its run's folder, or {HUB_PREFIX}org/name: correct the path."
    )


def locate(name_or_path: str | Path) -> tuple[str | None, Path]:
    """Returns (canonical name, None for a path; the path that it could be), for anything but the Hub.

    Raises:
        UnknownModelError: if it can only be a name, and is none.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if isinstance(name_or_path, Path) or any(c in text for c in "/\\."):
        return None, path
    try:
        return entry(text).name, path
    except LookupError:
        if not path.exists():
            raise
    return None, path


def open_published(name: str) -> Stored:
    """Reads the published weights of a canonical name.

    Raises:
        WeightsError: if there are none, or they are not as published.
    """
    record = manifest.published(name)
    if record is None:
        recipe = entry(name).recipe
        how = f"train it with `deqzoo fit -c recipes/{recipe}.yaml`" if recipe else "make it untrained"
        raise WeightsError(
            f"No pretrained weights exist for {name!r}. deqzoo.list_models(pretrained=True) names the models "
            f"that have some: choose one of those, or {how} (deqzoo.create_model({name!r}))."
        )
    if record.source == "embedded":
        return open_folder(manifest.embedded_folder(name), digest=record.sha256, size=record.size)
    assert record.repo is not None
    return _open_hub(record.repo, record.revision, digest=record.sha256, size=record.size)


def open_folder(folder: Path, *, digest: str | None = None, size: int | None = None) -> Stored:
    """Reads weights that lie in a folder with their config.json.

    Args:
        folder: as `deqzoo.zoo.save` writes it.
        digest: the SHA-256 of the weights; None takes that in config.json.
        size: their length in bytes, likewise.

    Raises:
        WeightsError: if anything is missing, damaged or changed.
    """
    config = read_config(folder)
    return Stored(
        name=config.name,
        tensors=read_tensors(folder / WEIGHTS_FILE, digest=digest or config.sha256, size=size or config.size),
        origin=str(folder / WEIGHTS_FILE),
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        pretrained_cfg=config.pretrained_cfg,
        vocabulary=(config.pretrained_cfg or {}).get("vocabulary"),
    )


def _open_checkpoint(path: Path) -> Stored:
    found = read_checkpoint(path)
    return Stored(
        name=canonical(found.name),
        tensors=found.tensors,
        origin=str(path),
        num_classes=found.num_classes,
        in_chans=found.in_chans,
        label_names=found.label_names,
        vocabulary=found.vocabulary,
    )


def _open_hub(repo: str, revision: str | None, *, digest: str | None = None, size: int | None = None) -> Stored:
    from deqzoo.zoo import hub

    folder = hub.fetch(repo, revision)
    try:
        return open_folder(folder, digest=digest, size=size)
    except DamagedWeightsError as error:
        if not hub.discard(folder):
            raise
        raise DamagedWeightsError(
            f"{error} They were removed from the cache, so that loading them again fetches them anew."
        ) from error
