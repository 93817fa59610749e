"""Images of nothing, to try out whether and how fast something runs."""

from dataclasses import replace
from typing import Literal, Unpack

import torch

from deqzoo.data.batches import derive_seed
from deqzoo.data.image_data import ImageData, ImageOptions
from deqzoo.data.image_set import Images, ImageSet
from deqzoo.errors import DataError, listed
from deqzoo.models.input_spec import INPUT_SPECS


class NoiseImages(ImageData):
    """Random pixels with random labels, in the form of a data set.

    Args:
        like: a data set of `INPUT_SPECS`.
        size: height and width in pixels, if other than its own.
        num_images: in each split.
        **options: of `ImageData`.

    Raises:
        DataError: if there is no such data set.
    """

    def __init__(
        self, like: str, *, size: int | None = None, num_images: int = 512, **options: Unpack[ImageOptions]
    ) -> None:
        if like not in INPUT_SPECS:
            raise DataError(
                f"like = {like!r} is no data set whose images are specified. Use one of {listed(INPUT_SPECS, 12)}."
            )
        if num_images < 1 or (size is not None and size < 1):
            raise ValueError(f"num_images = {num_images}, size = {size}. Both are 1 or more: correct the value.")
        spec = INPUT_SPECS[like]
        super().__init__(spec if size is None else replace(spec, size=(size, size)), ".", **options)
        self.num_images = num_images

    def read(self, split: Literal["train", "test"]) -> Images:
        """Returns the images of a split, the same for the same seed."""
        generator = torch.Generator().manual_seed(derive_seed("noise", split, self.seed))
        shape = (self.num_images, self.spec.channels, *self.spec.size)
        return ImageSet(
            images=torch.randint(256, shape, dtype=torch.uint8, generator=generator),
            labels=torch.randint(self.num_classes, (self.num_images,), generator=generator),
        )
