"""A few hundred real test images inside the package, for a look at a model where no data is at hand."""

import json
from importlib import resources
from typing import Any, Literal, Unpack

import numpy as np
import torch
from PIL import Image

from deqzoo.data.image_data import ImageData, ImageOptions
from deqzoo.data.image_set import ImageSet
from deqzoo.errors import DataError
from deqzoo.models.input_spec import INPUT_SPECS

_FOLDER = resources.files("deqzoo.data") / "samples"
_COLUMNS = 20


def embedded_samples() -> tuple[str, ...]:
    """Returns the names of the data sets that have a sample in the package."""
    return tuple(sorted(entry.name[:-5] for entry in _FOLDER.iterdir() if entry.name.endswith(".json")))


class EmbeddedSample(ImageData):
    """300 images of a test set, 30 of each class, in an order that mixes the classes.

    For a first look only: 300 images leave an interval of about ± 1 % around an accuracy of 99 %, and ± 5 %
    around 75 %. There is nothing to train on.

    Args:
        name: one of `embedded_samples()`.
        **options: of `ImageData`; those of training have no effect.

    Attributes:
        indices: (N,) int64 positions in the original test set, None where they are not known.

    Raises:
        DataError: if there is no sample of that name.
    """

    def __init__(self, name: str, **options: Unpack[ImageOptions]) -> None:
        if name not in embedded_samples():
            raise DataError(
                f"There is no embedded sample of {name!r}. The package has samples of "
                f"{', '.join(embedded_samples())}: use one of these, or the data set itself."
            )
        super().__init__(INPUT_SPECS[name], str(_FOLDER), **options)
        self._labels: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))
        self.indices = None if self._labels["indices"] is None else torch.tensor(self._labels["indices"])

    def read(self, split: Literal["train", "test"]) -> ImageSet:
        """Returns the sample, a part of the test set.

        Raises:
            DataError: if training images are asked for.
        """
        name = self.spec.dataset
        if split == "train":
            raise DataError(
                f"The embedded sample of {name} has no training images. It is part of the test set: train "
                "on the data set itself."
            )
        labels = torch.tensor(self._labels["labels"])
        height, width = self.spec.size
        with (_FOLDER / f"{name}.png").open("rb") as file, Image.open(file) as mosaic:
            pixels = torch.from_numpy(np.array(mosaic))
        rows = pixels.view(-1, height, _COLUMNS, width, self.spec.channels)
        images = rows.permute(0, 2, 4, 1, 3).flatten(0, 1).contiguous()
        return ImageSet(images=images, labels=labels)
