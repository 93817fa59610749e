"""Test images that are at hand already: a part of a test set, or a changed one."""

from typing import Literal

from deqzoo.data import ImageData
from deqzoo.data.image_set import Images
from deqzoo.errors import DataError
from deqzoo.models import InputSpec


class GivenImages(ImageData):
    """A data module of given test images.

    Args:
        spec: of the images.
        images: the test set.
    """

    def __init__(self, spec: InputSpec, images: Images) -> None:
        super().__init__(spec, ".")
        self.images = images

    def read(self, split: Literal["train", "test"]) -> Images:
        """Returns the images.

        Raises:
            DataError: if training images are asked for.
        """
        if split == "train":
            raise DataError(
                f"These images of {self.spec.dataset} were given as test images. There is nothing to train on: train "
                "on the data set itself."
            )
        return self.images
