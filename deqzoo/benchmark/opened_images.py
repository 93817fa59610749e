"""The test images of a benchmark: a whole set, the sample of it in the package, or a few of its images."""

from pathlib import Path

import torch

from deqzoo.benchmark.given_images import GivenImages
from deqzoo.data import EmbeddedSample, ImageData, ImageFolder, embedded_samples, open_data
from deqzoo.errors import DataError

FEW = 500
"""Images for a quick look."""
_SUFFIX = "-sample"


def open_test_images(
    name: str, *, root: Path, like: str | None = None, download: bool = False, limit: int | None = None
) -> ImageData:
    """Returns the data module for the name of a data set, "mnist-sample" and the like, or a folder.

    Args:
        name: what `open_data` takes, or the name of a sample in the package with "-sample" behind.
        root: where a named data set lies.
        like: the data set whose size, normalisation and labels the images of a folder have.
        download: fetch a named data set if it is missing.
        limit: the most images, drawn at random and the same in every run; None for all.

    Raises:
        DataError: if there is no such data, or it cannot be read, or `like` is given for what is no folder.
    """
    if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in embedded_samples():
        data: ImageData = EmbeddedSample(name.removesuffix(_SUFFIX))
    else:
        data = open_data(name, root=root, like=like, download=download)
    if like is not None and not isinstance(data, ImageFolder):
        raise DataError(
            f"{name} was given with like={like!r}. That is for folders: a named data set has its own size, "
            f"normalisation and labels. Leave it out, or write ./{name} for a folder of that name."
        )
    if limit is None:
        return data
    images = data.image_set("test")
    # Folders hold their images class after class: the first ones would be all alike.
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:limit]
    return GivenImages(data.spec, images.select(drawn.sort().values))
