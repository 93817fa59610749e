"""Data sets that torchvision reads and downloads."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor
from torchvision import datasets

from deqzoo.data.image_data import ImageData, ImageOptions
from deqzoo.data.image_set import ImageSet
from deqzoo.errors import DataError
from deqzoo.models.input_spec import INPUT_SPECS


class TorchvisionData(ImageData):
    """A named data set in the files in which its authors published it.

    Args:
        root: the folder that holds the one named in `layout`.
        download: fetch what is missing. Otherwise nothing touches the network.
        **options: of `ImageData`.
    """

    dataset: ClassVar[str]
    layout: ClassVar[str]

    def __init__(self, root: str | Path = "data", *, download: bool = False, **options: Unpack[ImageOptions]) -> None:
        super().__init__(INPUT_SPECS[self.dataset], root, **options)
        self.download = download

    def prepare_data(self) -> None:
        """Downloads, on one process of each machine."""
        if self.download:
            for train in (True, False):
                self._open(train=train, download=True)

    def read(self, split: Literal["train", "test"]) -> ImageSet:
        """Returns a split from the disk; downloads it first if that is wanted and no trainer did."""
        train = split == "train"
        images, labels = self._tensors(self._open(train=train, download=self.download and self.trainer is None))
        return ImageSet(images=images, labels=labels)

    def _open(self, *, train: bool, download: bool) -> Any:
        try:
            return self._reader()(self.root, train, download=download)
        except ModuleNotFoundError as error:
            raise DataError(
                f"Reading {self.dataset} needs the package {error.name}, which is not installed. Its files "
                f"are in a format of its own: run `pip install {error.name}`."
            ) from error
        except (RuntimeError, ValueError, AssertionError, OSError, EOFError, IndexError) as error:
            raise DataError(
                f"Could not read {self.dataset} in {self.root.absolute()}: "
                f"{error or type(error).__name__}. Expected {self.layout} there, complete and unchanged. "
                "Put the files there, correct the root, or let them be fetched with download=True "
                "(`--download` on the command line)."
            ) from error

    @abstractmethod
    def _reader(self) -> Callable[..., Any]:
        """Returns torchvision's class, called with (root, train, download=)."""

    @abstractmethod
    def _tensors(self, reader: Any) -> tuple[Tensor, Tensor]:
        """Returns the images (N, C, H, W) uint8 and labels (N,) int64 of what `_reader` opened."""


class MNIST(TorchvisionData):
    """Handwritten digits: 60,000 for training, 10,000 for testing, 28 × 28 grey."""

    dataset = "mnist"
    layout = "MNIST/raw/train-images-idx3-ubyte and its three companions"

    def _reader(self) -> Callable[..., Any]:
        return datasets.MNIST

    def _tensors(self, reader: Any) -> tuple[Tensor, Tensor]:
        return reader.data[:, None], reader.targets.long()


class FashionMNIST(MNIST):
    """Articles of clothing in the format of MNIST."""

    dataset = "fashion-mnist"
    layout = "FashionMNIST/raw/train-images-idx3-ubyte and its three companions"

    def _reader(self) -> Callable[..., Any]:
        return datasets.FashionMNIST


class CIFAR10(TorchvisionData):
    """Photographs of 10 classes: 50,000 for training, 10,000 for testing, 32 × 32 RGB."""

    dataset = "cifar10"
    layout = "cifar-10-batches-py/data_batch_1 to 5, test_batch and batches.meta"

    def _reader(self) -> Callable[..., Any]:
        return datasets.CIFAR10

    def _tensors(self, reader: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(reader.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(reader.targets)


class CIFAR100(CIFAR10):
    """Photographs of 100 classes in the format of CIFAR-10."""

    dataset = "cifar100"
    layout = "cifar-100-python/train, test and meta"

    def _reader(self) -> Callable[..., Any]:
        return datasets.CIFAR100


class SVHN(TorchvisionData):
    """House numbers from photographs of streets: 73,257 for training, 26,032 for testing, 32 × 32 RGB."""

    dataset = "svhn"
    layout = "train_32x32.mat and test_32x32.mat"

    def _reader(self) -> Callable[..., Any]:
        return _open_svhn

    def _tensors(self, reader: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(reader.data).contiguous(), torch.from_numpy(reader.labels).long()


def _open_svhn(root: Path, train: bool, *, download: bool) -> Any:
    return datasets.SVHN(root, "train" if train else "test", download=download)
