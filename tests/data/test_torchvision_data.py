"""Named data sets: read from the files of their authors, and clear about what is missing."""

import builtins
import hashlib
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torchvision import datasets

from deqzoo.data import CIFAR10, CIFAR100, DATASETS, MNIST, SVHN, FashionMNIST
from deqzoo.errors import DataError
from deqzoo.models.input_spec import INPUT_SPECS

from .conftest import FullData, write_mnist


@pytest.mark.parametrize(("data", "name"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_idx_files_are_read_bit_for_bit(tmp_path, data, name):
    write_mnist(tmp_path, name=name)
    images = data(tmp_path).image_set("test")
    content = (tmp_path / name / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert images.images.numpy().tobytes() == content
    assert images.images.shape == (20, 1, 28, 28)
    assert images.labels.tolist() == [i % 10 for i in range(20)] and images.labels.dtype == torch.int64


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, *, fine: bool) -> dict[str, np.ndarray]:
    """Writes small python batches, makes torchvision accept their checksums, and returns their pixels."""
    reader = datasets.CIFAR100 if fine else datasets.CIFAR10
    folder = root / reader.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = {}

    def write(name: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    for field in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(reader, field):
            pixels[name] = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
            labels = "fine_labels" if fine else "labels"
            sums.append([name, write(name, {"data": pixels[name], labels: list(range(10))})])
        monkeypatch.setattr(reader, field, sums)
    names = {reader.meta["key"]: [str(i) for i in range(100 if fine else 10)]}
    checksum = write(reader.meta["filename"], names)
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": checksum})
    return pixels


def test_cifar10_is_read_from_its_python_batches(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path, monkeypatch, fine=False)
    data = CIFAR10(tmp_path)
    train, test = data.image_set("train"), data.image_set("test")
    assert train.images.shape == (50, 3, 32, 32) and test.labels.tolist() == list(range(10))
    assert np.array_equal(test.images.numpy().reshape(10, -1), pixels["test_batch"])
    assert np.array_equal(train.images[20:30].numpy().reshape(10, -1), pixels["data_batch_3"])


@pytest.mark.skipif("cifar100" not in INPUT_SPECS, reason="INPUT_SPECS has no cifar100")
def test_cifar100_has_its_fine_labels(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path, monkeypatch, fine=True)
    test = CIFAR100(tmp_path).image_set("test")
    assert np.array_equal(test.images.numpy().reshape(10, -1), pixels["test"])
    assert test.labels.tolist() == list(range(10))


def test_a_changed_cifar_file_is_not_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, fine=False)
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a file with a wrong checksum was unpickled"))
    with (tmp_path / datasets.CIFAR10.base_folder / "test_batch").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"Could not read cifar10.*complete and unchanged"):
        CIFAR10(tmp_path).image_set("test")


def test_svhn_needs_scipy_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    imports = builtins.__import__

    def without_scipy(name, *args, **kwargs):
        if name.split(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(DataError, match=r"svhn needs the package scipy.*`pip install scipy`"):
        SVHN(tmp_path).image_set("test")


def test_svhn_turns_its_label_10_into_0(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    scipy, io = types.ModuleType("scipy"), types.ModuleType("scipy.io")
    monkeypatch.setattr(io, "loadmat", lambda path: {"X": pixels, "y": np.array([[1], [10], [3], [9]])}, raising=False)
    monkeypatch.setattr(scipy, "io", io, raising=False)
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    monkeypatch.setitem(sys.modules, "scipy.io", io)
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    test = SVHN(tmp_path).image_set("test")
    assert test.labels.tolist() == [1, 0, 3, 9]
    assert np.array_equal(test.images[2].numpy(), pixels[..., 2].transpose(2, 0, 1))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_missing_files_are_explained(tmp_path, name):
    if name not in INPUT_SPECS:
        pytest.skip(f"INPUT_SPECS has no {name}")
    data = DATASETS[name](tmp_path / "nowhere")
    with pytest.raises(DataError) as error:
        data.setup("fit")
    message = str(error.value)
    assert message.startswith(f"Could not read {name} in {tmp_path / 'nowhere'}")
    assert data.layout in message and "download=True" in message and "--download" in message
    assert not (tmp_path / "nowhere").exists()


def test_a_truncated_file_is_explained(mnist_root):
    path = mnist_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"Could not read mnist in .*complete and unchanged"):
        MNIST(mnist_root).image_set("test")


def test_labels_of_another_split_are_noticed(mnist_root):
    raw = mnist_root / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DataError, match=r"20 images with 40 labels"):
        MNIST(mnist_root).image_set("test")


def test_nothing_is_downloaded_unless_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: asked.append(self.train))
    MNIST(tmp_path).prepare_data()
    with pytest.raises(DataError):
        MNIST(tmp_path).image_set("test")
    assert asked == []
    with pytest.raises(DataError):
        MNIST(tmp_path, download=True).image_set("test")
    assert asked == [False]
    write_mnist(tmp_path)
    MNIST(tmp_path, download=True).prepare_data()
    assert asked == [False, True, False]
    trained = MNIST(tmp_path, download=True)
    trained.trainer = Trainer(accelerator="cpu", logger=False)
    trained.setup("test")
    assert asked == [False, True, False]  # a trainer lets one process prepare, and all of them set up


def test_the_real_mnist_has_its_published_size_and_statistics(full_data: FullData):
    data = MNIST(full_data("MNIST"))
    train, test = data.image_set("train"), data.image_set("test")
    assert len(train) == 60_000 and len(test) == 10_000
    pixels = train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(data.spec.mean[0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(data.spec.std[0], abs=1e-4)
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
