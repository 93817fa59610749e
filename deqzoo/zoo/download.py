"""Weights for later use: into the cache, or into a folder that can be carried elsewhere."""

from pathlib import Path

from deqzoo.zoo.release import copy_kept, release_folder
from deqzoo.zoo.stored import HUB_PREFIX, open_stored


def download(name: str, destination: Path | None = None) -> Path:
    """Fetches and checks the weights of a name or of "hf-hub:org/name[@revision]", and returns where they are.

    Args:
        name: in any spelling.
        destination: gets a folder with a copy, named after the model; None leaves it to the cache, where `load` finds
            it.

    Raises:
        UnknownModelError: if there is no such name.
        WeightsError: if there are no weights, or they are damaged or cannot be fetched.
    """
    stored = open_stored(name)
    folder = release_folder(name)
    if destination is None:
        return folder
    called = name.removeprefix(HUB_PREFIX).partition("@")[0].rpartition("/")[2] if HUB_PREFIX in name else stored.name
    copy_kept(folder, destination / called)
    open_stored(destination / called)  # reads the copy
    return destination / called
