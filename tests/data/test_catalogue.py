"""Names and paths become data modules."""

import pytest

from deqzoo.data import (
    CIFAR10,
    DATASETS,
    MNIST,
    FashionMNIST,
    ImageData,
    ImageFolder,
    TorchvisionData,
    open_data,
)
from deqzoo.errors import DataError


def subclasses(cls: type) -> set[type]:
    return {cls} | {deeper for below in cls.__subclasses__() for deeper in subclasses(below)}


def test_every_named_data_set_is_in_the_catalogue():
    assert set(DATASETS.values()) == subclasses(TorchvisionData) - {TorchvisionData}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mnist", MNIST), ("MNIST", MNIST), ("Fashion_MNIST", FashionMNIST), ("cifar-10", CIFAR10)],
)
def test_names_are_found_in_any_spelling(name, expected, tmp_path):
    data = open_data(name, root=tmp_path, batch_size=7, download=True)
    assert isinstance(data, TorchvisionData) and type(data) is expected
    assert (data.root, data.batch_size, data.download) == (tmp_path, 7, True)


def test_a_folder_becomes_an_image_folder(folder_root):
    for path in (folder_root, str(folder_root)):
        data = open_data(path, like="cifar10", val_size=2)
        assert type(data) is ImageFolder and data.spec.size == (32, 32) and data.val_size == 2


def test_a_name_comes_before_a_folder_of_that_name(tmp_path, folder_root, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (folder_root / "test").rename(tmp_path / "mnist" / "test")
    monkeypatch.chdir(tmp_path)
    assert type(open_data("mnist")) is MNIST
    assert type(open_data("./mnist", like="mnist")) is ImageFolder


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(DataError, match=r"'mnits' is neither a known data set nor a folder. Did you mean 'mnist'\?"):
        open_data("mnits")
    with pytest.raises(DataError, match=r"nor a folder. Use one of mnist, .* or a folder with train/<class>/"):
        open_data("/no/such/place")


def test_a_folder_cannot_be_downloaded(folder_root):
    with pytest.raises(DataError, match=r"is a folder and cannot be downloaded.*leave out download"):
        open_data(folder_root, like="cifar10", download=True)


def test_unknown_options_are_type_errors(tmp_path, folder_root):
    for name in ("mnist", folder_root):
        with pytest.raises(TypeError, match=r"num_workers"):
            open_data(name, root=tmp_path, like="mnist", num_workers=2)  # pyright: ignore[reportCallIssue]


def test_recipes_can_name_data_and_augmentations(tmp_path):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageData, "data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
data:
  class_path: deqzoo.data.MNIST
  init_args:
    root: somewhere
    batch_size: 64
    augment:
      - {class_path: deqzoo.data.RandomAffine, init_args: {degrees: 10}}
      - {class_path: deqzoo.data.ElasticDeform, init_args: {alpha: 0.5}}
"""
    )
    data = parser.instantiate(parser.parse_path(recipe)).data
    assert isinstance(data, MNIST) and data.batch_size == 64
    assert [repr(a) for a in data.augment] == [
        "RandomAffine(degrees=10.0, translate=0.0, scale=0.0, shear=0.0)",
        "ElasticDeform(alpha=0.5, sigma=4.0)",
    ]
