"""From what a user types to a data module."""

from pathlib import Path
from typing import Unpack

from deqzoo.data.image_data import ImageData, ImageOptions
from deqzoo.data.image_folder import ImageFolder
from deqzoo.data.names import by_name, hint
from deqzoo.data.streamed_folder import StreamedImageFolder
from deqzoo.data.torchvision_data import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, TorchvisionData
from deqzoo.errors import DataError

DATASETS: dict[str, type[TorchvisionData]] = {
    data.dataset: data for data in (MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN)
}

_LARGE = ("imagenet-1k",)  # more images than the memory holds


def open_data(
    name_or_path: str | Path,
    *,
    root: str | Path = "data",
    like: str | None = None,
    download: bool = False,
    **options: Unpack[ImageOptions],
) -> ImageData:
    """Returns the data module for the name of a data set or for a folder of images.

    A name comes first: write ./mnist for a folder that is called like a data set. Nothing is read yet.

    Args:
        name_or_path: such as "mnist" or "fashion_mnist", in any spelling, or a folder for `ImageFolder`.
        root: where a named data set lies; a folder is its own root.
        like: the data set whose size and normalisation a folder's images get; a named one has its own.
        download: fetch a named data set if it is missing.
        **options: of the data module.

    Raises:
        DataError: if it is neither, with the nearest name.
    """
    text = str(name_or_path)
    found = by_name(text, DATASETS)
    if found is not None:
        return found(root, download=download, **options)
    path = Path(text).expanduser()
    if path.is_dir():
        if download:
            raise DataError(
                f"{text} is a folder and cannot be downloaded. Only {', '.join(DATASETS)} can: leave out download."
            )
        folder = StreamedImageFolder if like in _LARGE else ImageFolder
        return folder(path, like=like, **options)
    raise DataError(
        f"{text!r} is neither a known data set nor a folder. {hint(text, DATASETS)}Use one of {', '.join(DATASETS)}, "
        "or a folder with train/<class>/ and test/<class>/."
    )
