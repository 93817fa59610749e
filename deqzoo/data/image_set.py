"""Labelled images in memory, and what is done to them before a network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from deqzoo.errors import DataError


class Batch(NamedTuple):
    """Raw images on their way to the device.

    Attributes:
        images: (B, C, H, W) uint8.
        labels: (B,) int64.
        key: seeds the augmentation; None means that the batch is not augmented.
    """

    images: Tensor
    labels: Tensor
    key: int | None


class Images(Protocol):
    """Labelled images of one split, wherever they are.

    Attributes:
        unit: what one of them is called.
        images: (N, C, H, W) uint8, or what gives those for indices and slices.
        labels: (N,) int64.
    """

    unit: ClassVar[str]

    @property
    def images(self) -> Any: ...

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, key: int | None) -> Batch:
        """Returns the images at `indices` (B,); `key` seeds what is drawn for them."""
        ...

    def select(self, indices: Tensor) -> Self:
        """Returns the images at `indices`, an int64 tensor of shape (K,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images and labels of one split, decoded.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.

    Raises:
        DataError: if there are no images, or not as many labels as images.
    """

    unit: ClassVar[str] = "image"
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"Images of shape {tuple(self.images.shape)} and type {self.images.dtype}. A data set "
                "holds uint8 images of shape (N, C, H, W): convert them first."
            )
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise DataError(
                f"{len(self.images)} images with {len(self.labels)} labels. A data set has at least one "
                "image and one label for each: look whether a file is missing or belongs to another split."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, key: int | None) -> Batch:
        """Returns the images at `indices` (B,); `key` seeds their augmentation."""
        return Batch(self.images[indices], self.labels[indices], key)

    def select(self, indices: Tensor) -> "ImageSet":
        """Returns the images at `indices`, an int64 tensor of shape (K,)."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def split_by_class(labels: Tensor, num_second: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the indices of two parts with the same share of every class.

    Every class gives its proportional number of images to the second part; what rounding leaves
    over goes to the classes with the largest remainders. Both results ascend.

    Args:
        labels: (N,) int64.
        num_second: images in the second part.
        seed: of the shuffle that chooses which images of a class go.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    counts = torch.bincount(labels)
    wanted = counts.double() * num_second / len(labels)
    quota = wanted.floor().long()
    leftover = num_second - int(quota.sum())
    quota[(wanted - quota).argsort(descending=True, stable=True)[:leftover]] += 1
    shuffled = labels[order]
    members = [order[shuffled == k] for k in range(len(counts))]
    second = torch.cat([m[: int(q)] for m, q in zip(members, quota, strict=True)])
    first = torch.cat([m[int(q) :] for m, q in zip(members, quota, strict=True)])
    return first.sort().values, second.sort().values


def to_float(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1]."""
    return images.float().div_(255.0)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Returns (images − mean) / std for images (B, C, H, W) in [0, 1]; mean and std are per channel."""
    shape = (1, -1, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
