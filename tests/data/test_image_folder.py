"""Image folders: pixels kept, labels consistent, and every damaged tree named."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from deqzoo.data import ImageFolder
from deqzoo.data import image_folder as module
from deqzoo.errors import DataError
from deqzoo.models.input_spec import INPUT_SPECS

from .conftest import write_image


def test_images_of_the_right_size_keep_their_pixels(folder_root):
    data = ImageFolder(folder_root, size=8)
    train, test = data.image_set("train"), data.image_set("test")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 1]
    for label, name in enumerate(("ant", "bee")):
        for i in range(3):
            original = np.asarray(Image.open(folder_root / "train" / name / f"{i}.png"))
            assert np.array_equal(train.images[3 * label + i].permute(1, 2, 0).numpy(), original)
    assert data.spec.label_names == ("ant", "bee") and data.num_classes == 2
    assert data.spec.size == (8, 8) and data.spec.channels == 3


def test_other_images_are_scaled_and_cropped_at_the_centre(folder_root):
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 200  # the square in the middle
    Image.fromarray(wide).save(folder_root / "test" / "ant" / "1.png")
    image = ImageFolder(folder_root, size=8).image_set("test").images[1]
    assert image.shape == (3, 8, 8) and (image[:, :, 1:-1].int() - 200).abs().max() <= 5


def test_images_are_found_at_any_depth_and_other_files_ignored(folder_root):
    write_image(folder_root / "test" / "bee" / "deep" / "er" / "1.png", 5)
    (folder_root / "test" / "bee" / "notes.txt").write_text("no image")
    (folder_root / "test" / "bee" / "._0.png").write_text("a stray file of some system")
    (folder_root / "test" / ".cache").mkdir()
    assert ImageFolder(folder_root, size=8).image_set("test").labels.tolist() == [0, 1, 1]


def test_grey_and_coloured_images_mix(folder_root):
    grey = write_image(folder_root / "test" / "ant" / "1.png", 5, mode="L")
    images = ImageFolder(folder_root, size=8).image_set("test").images
    assert np.array_equal(images[1].numpy(), np.stack([grey] * 3))
    for path in folder_root.rglob("*.png"):
        write_image(path, 5, size=(28, 28), mode="L")
    write_image(folder_root / "train" / "bee" / "0.png", 6, size=(28, 28), mode="RGB")
    data = ImageFolder(folder_root, like="mnist")
    assert data.image_set("train").images.shape == (6, 1, 28, 28)
    assert (
        data.image_set("test").images[0, 0].numpy().tobytes()
        == write_image(folder_root / "again.png", 5, size=(28, 28), mode="L").tobytes()
    )


def test_like_gives_size_normalisation_and_order_of_labels(tmp_path):
    write_image(tmp_path / "test" / "truck" / "0.png", 1, size=(32, 32))
    write_image(tmp_path / "test" / "cat" / "0.png", 2, size=(32, 32))
    data = ImageFolder(tmp_path, like="cifar10")
    spec = INPUT_SPECS["cifar10"]
    assert data.image_set("test").labels.tolist() == [3, 9]
    assert (data.spec.mean, data.spec.std, data.spec.size) == (spec.mean, spec.std, (32, 32))
    assert data.spec.label_names == spec.label_names and data.spec.dataset == tmp_path.name
    assert ImageFolder(tmp_path, like="cifar10", size=16).spec.size == (16, 16)


def test_like_keeps_the_folders_own_classes(folder_root):
    assert ImageFolder(folder_root, like="cifar10").spec.label_names == ("ant", "bee")


def test_a_val_folder_validates_and_stands_in_for_a_missing_test(folder_root):
    (folder_root / "test").rename(folder_root / "val")
    data = ImageFolder(folder_root, size=8)
    assert torch.equal(data.image_set("val").images, data.image_set("test").images)
    assert len(data.val_dataloader()) == 1
    write_image(folder_root / "test" / "ant" / "0.png", 77)
    data = ImageFolder(folder_root, size=8)
    assert len(data.image_set("val")) == 2 and len(data.image_set("test")) == 1
    with pytest.raises(DataError, match=r"val_size = 2, but .*val exists.*set val_size to 0"):
        ImageFolder(folder_root, size=8, val_size=2)


def test_without_a_val_folder_images_are_split_off(folder_root):
    data = ImageFolder(folder_root, size=8, val_size=2)
    assert data.image_set("val").labels.tolist() == [0, 1] and len(data.image_set("train")) == 4


def test_many_files_get_a_progress_bar(folder_root, monkeypatch, capsys):
    ImageFolder(folder_root, size=8).image_set("train")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_QUIET_BELOW", 3)
    ImageFolder(folder_root, size=8).image_set("train")
    assert capsys.readouterr().err == ""  # which is no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ImageFolder(folder_root, size=8).image_set("train")
    assert "reading train" in capsys.readouterr().err


def test_a_truncated_image_is_named(folder_root):
    path = folder_root / "train" / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"bee/1\.png could not be decoded: .*replace or remove it"):
        ImageFolder(folder_root, size=8).image_set("train")


def test_a_file_that_is_no_image_is_named(folder_root):
    for content in (b"", b"hello"):
        (folder_root / "train" / "bee" / "x.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"bee/x\.jpg could not be decoded"):
            ImageFolder(folder_root, size=8).image_set("train")


def test_sixteen_bits_are_not_cut_down_silently(folder_root):
    pixels = np.full((8, 8), 40_000, dtype=np.uint16)
    Image.fromarray(pixels).save(folder_root / "train" / "ant" / "0.png")
    with pytest.raises(DataError, match=r"ant/0\.png has pixels of mode 'I.*8 bits per channel"):
        ImageFolder(folder_root, size=8).image_set("train")


def test_a_class_that_training_does_not_know_is_named(folder_root):
    write_image(folder_root / "test" / "wasp" / "0.png", 1)
    with pytest.raises(DataError, match=r"test/wasp is a class that training does not know: it knows ant, bee\."):
        ImageFolder(folder_root, size=8).image_set("test")


def test_classes_half_of_a_known_data_set_are_refused(tmp_path):
    for name in ("cat", "dgo"):
        write_image(tmp_path / "train" / name / "0.png", 1)
    with pytest.raises(DataError, match=r"train/dgo is no class of cifar10.*rename the folder"):
        ImageFolder(tmp_path, like="cifar10")


def test_empty_and_missing_folders_are_named(folder_root, tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere\. Images are expected as root/train/<class>"):
        ImageFolder(tmp_path / "nowhere", size=8)
    with pytest.raises(DataError, match=r"no train, test or val in .*ant"):
        ImageFolder(folder_root / "train" / "ant", size=8)
    (folder_root / "train" / "cow").mkdir()
    with pytest.raises(DataError, match=r"train/cow holds no images. Every class needs at least one"):
        ImageFolder(folder_root, size=8).image_set("train")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty/train has no class folders"):
        ImageFolder(tmp_path / "empty", size=8)
    (folder_root / "test").rename(folder_root / "elsewhere")
    with pytest.raises(DataError, match=r"There is no folder .*/test\. "):
        ImageFolder(folder_root, size=8).image_set("test")


def test_a_size_must_come_from_somewhere(folder_root):
    with pytest.raises(DataError, match=r"No image size for .*pass size=…, or like=…"):
        ImageFolder(folder_root)
    with pytest.raises(DataError, match=r"like = 'cifar' is no data set.*cifar10"):
        ImageFolder(folder_root, like="cifar")
