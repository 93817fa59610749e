"""Images that stay in their files until a batch needs them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deqzoo.data.image_set import Batch
from deqzoo.data.pictures import open_image, to_pixels
from deqzoo.data.random_crop import RandomCrop
from deqzoo.errors import DataError
from deqzoo.models.input_spec import InputSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles(Dataset[Batch]):
    """Labelled images of one split, decoded anew whenever they are needed.

    Attributes:
        paths: (N,) of bytes, which a million files need little memory for and processes can share.
        labels: (N,) int64.
        spec: their channels and size.
        crop: cut out of training images; None for their centres, as in evaluation.
        num_workers: processes that decode batches in advance; 0 decodes when a batch is wanted.

    Raises:
        DataError: if there are no images.
    """

    unit: ClassVar[str] = "image"
    paths: np.ndarray
    labels: Tensor
    spec: InputSpec
    crop: RandomCrop | None = None
    num_workers: int = 0

    @classmethod
    def of(
        cls,
        files: Sequence[tuple[Path, int]],
        spec: InputSpec,
        *,
        crop: RandomCrop | None = None,
        num_workers: int = 0,
    ) -> "ImageFiles":
        """Returns the images of (path, label)."""
        paths = np.array([os.fsencode(path) for path, _ in files], dtype=np.bytes_)
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        return cls(paths=paths, labels=labels, spec=spec, crop=crop, num_workers=num_workers)

    def __post_init__(self) -> None:
        if len(self.labels) == 0 or len(self.labels) != len(self.paths):
            raise DataError(
                f"{len(self.paths)} image files with {len(self.labels)} labels. A data set has at least one image and "
                "one label for each: look whether a file is missing."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> "_Decoded":
        """What gives the images (N, C, H, W) uint8 for indices or a slice."""
        return _Decoded(self)

    def select(self, indices: Tensor) -> "ImageFiles":
        """Returns the images at `indices`, an int64 tensor of shape (K,)."""
        return replace(self, paths=self.paths[indices.numpy()], labels=self.labels[indices])

    def batch(self, indices: Tensor, key: int | None) -> Batch:
        """Returns the images at `indices` (B,); `key` seeds what is cut out of them, None for their centres."""
        images = torch.empty(len(indices), self.spec.channels, *self.spec.size, dtype=torch.uint8)
        for place, (image, index) in enumerate(zip(images, indices.tolist(), strict=True)):
            image.copy_(self._decode(index, None if key is None else key + place))
        return Batch(images, self.labels[indices], key)

    def __getitem__(self, planned: tuple[Tensor, int | None]) -> Batch:
        return self.batch(*planned)

    def stream(self, plan: Iterable[tuple[Tensor, int | None]]) -> Iterator[Batch]:
        """Yields the batches of (indices, key), of which some are decoded in advance."""
        yield from DataLoader(
            self,
            batch_size=None,
            sampler=list(plan),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: random numbers of a run must not depend on workers
        )

    def _decode(self, index: int, seed: int | None) -> Tensor:
        image = open_image(Path(os.fsdecode(self.paths[index])))
        box = None if self.crop is None or seed is None else self.crop.box(*image.size, seed)
        return to_pixels(image, channels=self.spec.channels, size=self.spec.size, box=box)


class _Decoded:
    """Images by index, as if they were in memory."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        chosen = torch.arange(len(self._files))[indices]
        return self._files.batch(chosen, None).images
