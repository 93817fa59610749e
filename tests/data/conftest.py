"""Small data sets in the formats of the real ones."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from deqzoo.data import ImageSet

FullData: TypeAlias = Callable[[str], Path]


@pytest.fixture
def full_data() -> FullData:
    """Gives the folder DEQZOO_DATA, where whole data sets lie, or skips a test whose data set is not there."""

    def root(folder: str) -> Path:
        where = os.environ.get("DEQZOO_DATA")
        if where is None or not (Path(where) / folder).is_dir():
            pytest.skip(f"needs the folder {folder} with the whole data set in the folder that DEQZOO_DATA names")
        return Path(where)

    return root


@pytest.fixture
def numbered() -> ImageSet:
    """100 images that carry their own number in every pixel; labels 0 to 3 of unequal frequency."""
    images = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 17 + [3] * 3)
    return ImageSet(images=images, labels=labels)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes uint8 numbers in the format of MNIST."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(root: Path, *, name: str = "MNIST", train: int = 40, test: int = 20) -> None:
    """Writes random images of 28 x 28 pixels, label i % 10, as root/<name>/raw."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """A folder with a small MNIST: 40 training and 20 test images."""
    write_mnist(tmp_path)
    return tmp_path


def write_image(path: Path, seed: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> np.ndarray:
    """Writes random pixels of (width, height) `size` and returns them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    """A folder with the classes ant and bee: 3 training images and 1 test image each, 8 x 8 RGB."""
    for label, name in enumerate(("ant", "bee")):
        for i in range(3):
            write_image(tmp_path / "train" / name / f"{i}.png", 10 * label + i)
        write_image(tmp_path / "test" / name / "0.png", 100 + label)
    return tmp_path
