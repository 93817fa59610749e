"""Folders of more images than the memory holds."""

from pathlib import Path
from typing import Unpack

from deqzoo.data.image_data import ImageOptions
from deqzoo.data.image_files import ImageFiles
from deqzoo.data.image_folder import ImageFolder
from deqzoo.data.image_set import Images
from deqzoo.data.random_crop import RandomCrop


class StreamedImageFolder(ImageFolder):
    """An `ImageFolder` whose images are decoded batch by batch, by processes of their own.

    The layout of ImageNet is root/train/<synset>/ and root/val/<synset>/, with like="imagenet-1k".

    Args:
        root: as for `ImageFolder`.
        like: likewise.
        size: likewise.
        crop: what is cut out of training images; None for their centres.
        num_workers: processes that decode; 0 decodes in the training process, when a batch is wanted.
        **options: of `ImageData`.

    Raises:
        DataError: for missing or empty folders, or classes that training does not know. Damaged images are found when
            they are needed.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        like: str | None = None,
        size: int | None = None,
        crop: RandomCrop | None = None,
        num_workers: int = 4,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(root, like=like, size=size, **options)
        if num_workers < 0:
            raise ValueError(f"num_workers = {num_workers}. There cannot be fewer than none: use 0 or more.")
        self.crop = crop
        self.num_workers = num_workers

    def _decode(self, folder: Path) -> Images:
        return ImageFiles.of(self._files(folder), self.spec, crop=self.crop, num_workers=self.num_workers)
