"""The test images of a benchmark: a whole set, the sample of it in the package, or the first images for a look."""

from pathlib import Path

import torch

from deqzoo.benchmark.given_images import GivenImages
from deqzoo.data import EmbeddedSample, ImageData, embedded_samples, open_data

_FEW = 500
_SUFFIX = "-sample"


def open_test_images(name: str, *, root: Path, download: bool = False, quick: bool = False) -> ImageData:
    """Returns the data module for the name of a data set, "mnist-sample" and the like, or a folder.

    Args:
        name: what `open_data` takes, or the name of a sample in the package with "-sample" behind.
        root: where a named data set lies.
        download: fetch a named data set if it is missing.
        quick: whether the first images are enough.

    Raises:
        DataError: if there is no such data, or it cannot be read.
    """
    if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in embedded_samples():
        data: ImageData = EmbeddedSample(name.removesuffix(_SUFFIX))
    else:
        data = open_data(name, root=root, download=download)
    if not quick:
        return data
    images = data.image_set("test")
    return GivenImages(data.spec, images.select(torch.arange(min(_FEW, len(images)))))
