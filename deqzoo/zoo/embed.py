"""Putting a release into a checkout of this library, for its next version."""

import json
from pathlib import Path
from typing import Any

from deqzoo.errors import WeightsError
from deqzoo.zoo import manifest
from deqzoo.zoo.cards import write_card
from deqzoo.zoo.figures import headlines
from deqzoo.zoo.layout import CONFIG_FILE, runtime_of, write_config
from deqzoo.zoo.loading import load
from deqzoo.zoo.release import copy_kept, read_results
from deqzoo.zoo.told_by_author import ToldByAuthor
from deqzoo.zoo.weights_config import read_config


def embed(folder: Path, *, cards: Path) -> None:
    """Copies a release into this package, notes its SHA-256, and writes its card and plots.

    Args:
        folder: as `deqzoo export` writes it.
        cards: the folder of model cards in the checkout.

    Raises:
        WeightsError: if the weights are damaged, or there is no such folder of cards.
    """
    _require(cards)
    load(folder)
    config = read_config(folder)
    copy_kept(folder, manifest.embedded_folder(config.name))
    # Otherwise what was told of an earlier release would be told of this one.
    ToldByAuthor.read(folder).write(manifest.embedded_folder(config.name))
    record = manifest.Published(source="embedded", sha256=config.sha256, size=config.size, results=config.results)
    manifest.register_weights(config.name, record)
    write_embedded_card(config.name, cards=cards)


def write_embedded_card(name: str, *, cards: Path) -> None:
    """Writes the card and plots of a canonical name into a checkout's folder of cards."""
    _require(cards)
    write_card(manifest.embedded_folder(name), cards / f"{name}.md", plots=cards / name)


def take_over_results(folder: Path) -> None:
    """Puts the figures in results.json into config.json; into the manifest too, if the folder is in this package.

    Solvers and adjoints are put down anew: they are those that the figures were just measured with.
    """
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text("utf-8"))
    task: Any = load(folder)
    config["deqzoo"]["solver"], config["deqzoo"]["adjoint"] = runtime_of(task.net)
    config["deqzoo"]["results"] = headlines(read_results(folder)["evaluation"])
    write_config(folder, config)
    found = read_config(folder)
    if folder == manifest.embedded_folder(found.name):
        record = manifest.Published(source="embedded", sha256=found.sha256, size=found.size, results=found.results)
        manifest.register_weights(found.name, record)


def _require(cards: Path) -> None:
    if not cards.is_dir():
        raise WeightsError(
            f"There is no folder {cards.absolute()}. Weights are embedded into a checkout of deqzoo, which "
            "has model_cards: run this in its root."
        )
