"""Putting a packaged model into a checkout of this library, for its next release."""

import shutil
from pathlib import Path

from deqzoo.errors import WeightsError
from deqzoo.zoo import manifest
from deqzoo.zoo.layout import CONFIG_FILE, WEIGHTS_FILE
from deqzoo.zoo.loading import load
from deqzoo.zoo.weights_config import read_config

CARD_FILE = "README.md"


def embed(folder: Path, *, cards: Path) -> None:
    """Copies weights into this package, notes their SHA-256, and copies the card and what it links to.

    Args:
        folder: as `deqzoo export` writes it.
        cards: the folder of model cards in the checkout.

    Raises:
        WeightsError: if the weights are damaged, or there is no such folder of cards.
    """
    if not cards.is_dir():
        raise WeightsError(
            f"There is no folder {cards.absolute()}. Weights are embedded into a checkout of deqzoo, which "
            "has model_cards: run this in its root."
        )
    load(folder)
    config = read_config(folder)
    name = config.name
    target = manifest.embedded_folder(name)
    target.mkdir(parents=True, exist_ok=True)
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        shutil.copyfile(folder / file, target / file)
    record = manifest.Published(source="embedded", sha256=config.sha256, size=config.size, results=config.results)
    manifest.register_weights(name, record)
    details = cards / name
    details.mkdir(exist_ok=True)
    card = (folder / CARD_FILE).read_text("utf-8")
    for path in sorted(folder.iterdir()):
        if path.name not in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
            shutil.copyfile(path, details / path.name)
            card = card.replace(f"]({path.name})", f"]({name}/{path.name})")
    (cards / f"{name}.md").write_text(card, "utf-8")
