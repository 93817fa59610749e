"""Images that are decoded when they are needed, and images of noise."""

import numpy as np
import pytest
import torch
from PIL import Image

from deqzoo.data import ImageFolder, NoiseImages, RandomCrop, StreamedImageFolder, TrainBatches, open_data
from deqzoo.data.image_files import ImageFiles
from deqzoo.errors import DataError


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_a_folder_in_memory(folder_root, num_workers):
    kept = ImageFolder(folder_root, size=8, batch_size=4)
    streamed = StreamedImageFolder(folder_root, size=8, batch_size=4, num_workers=num_workers)
    state = torch.get_rng_state()
    for ours, theirs in (
        (streamed.train_dataloader(), kept.train_dataloader()),
        (streamed.test_dataloader(), kept.test_dataloader()),
    ):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.key == b.key
    assert torch.equal(torch.get_rng_state(), state)
    images = streamed.image_set("test")
    assert torch.equal(images.images[:1], kept.image_set("test").images[:1])
    some = torch.tensor([1, 0])
    assert torch.equal(images.select(some).images[torch.arange(2)], kept.image_set("test").images[some])


def test_a_run_is_resumed_in_the_middle_of_an_epoch(folder_root):
    def batches() -> TrainBatches:
        return StreamedImageFolder(folder_root, size=8, batch_size=2, num_workers=0, seed=3).train_dataloader()

    whole, interrupted = list(batches()), batches()
    iterator = iter(interrupted)
    next(iterator)
    again = batches()
    again.load_state_dict(interrupted.state_dict())
    for a, b in zip(again, whole[1:], strict=True):
        assert torch.equal(a.images, b.images) and a.key == b.key


def test_training_images_are_cut_at_random_and_others_are_not(folder_root):
    ramp = np.tile(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (30, 1, 3))
    for path in folder_root.rglob("*.png"):
        Image.fromarray(ramp).save(path)
    crop = RandomCrop(min_area=0.1)
    data = StreamedImageFolder(folder_root, size=8, crop=crop, num_workers=0, batch_size=6)
    (first,), (second,) = list(data.train_dataloader()), list(data.train_dataloader())
    assert torch.equal(first.images, second.images)
    assert len({image.numpy().tobytes() for image in first.images}) > 3
    loader = data.train_dataloader()
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader)).images, first.images)
    plain = ImageFolder(folder_root, size=8).image_set("test")
    assert torch.equal(data.image_set("test").images[:], plain.images)


def test_crops_lie_in_the_picture_and_have_the_area_and_shape_asked_for():
    crop = RandomCrop(min_area=0.2, max_ratio=1.5)
    areas = []
    for seed in range(300):
        left, upper, right, lower = crop.box(60, 40, seed)
        assert 0 <= left < right <= 60 and 0 <= upper < lower <= 40
        ratio = (right - left) / (lower - upper)
        assert 1 / 1.6 <= ratio <= 1.6
        areas.append((right - left) * (lower - upper) / 2400)
    assert min(areas) < 0.3 and max(areas) > 0.8 and min(areas) > 0.18
    assert crop.box(60, 40, 5) == crop.box(60, 40, 5)
    # Nothing of the area fits into a strip: its middle is taken.
    assert RandomCrop(min_area=0.9, max_ratio=1.5).box(300, 20, 0) == (135, 0, 165, 20)
    for wrong in ({"min_area": 0.0}, {"min_area": 1.5}, {"max_ratio": 0.5}):
        with pytest.raises(ValueError, match="correct the value"):
            RandomCrop(**wrong)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_named_when_it_is_needed(folder_root, num_workers):
    (folder_root / "test" / "bee" / "0.png").write_bytes(b"no image")
    data = StreamedImageFolder(folder_root, size=8, num_workers=num_workers)
    assert len(data.image_set("test")) == 2
    with pytest.raises(DataError, match=r"0\.png could not be decoded"):
        list(data.test_dataloader())


def test_imagenet_is_streamed_and_wrong_numbers_are_refused(folder_root):
    assert type(open_data(folder_root, like="cifar10")) is ImageFolder
    with pytest.raises(ValueError, match="num_workers = -1"):
        StreamedImageFolder(folder_root, size=8, num_workers=-1)
    with pytest.raises(DataError, match="0 image files with 0 labels"):
        ImageFiles.of([], ImageFolder(folder_root, size=8).spec)
    for old, new in (("ant", "n01440764"), ("bee", "n01443537")):
        for split in ("train", "test"):
            (folder_root / split / old).rename(folder_root / split / new)
    data = open_data(folder_root, like="imagenet-1k")
    assert isinstance(data, StreamedImageFolder)
    assert data.image_set("test").labels.tolist() == [0, 1]
    assert data.image_set("test").images[:1].shape == (1, 3, 224, 224)


def test_noise_has_the_form_of_a_data_set():
    data = NoiseImages("cifar10", size=16, num_images=20, batch_size=8)
    images = data.image_set("train")
    assert images.images.shape == (20, 3, 16, 16) and set(images.labels.tolist()) <= set(range(10))
    assert not torch.equal(images.images, data.image_set("test").images)
    assert torch.equal(images.images, NoiseImages("cifar10", size=16, num_images=20).image_set("train").images)
    with pytest.raises(DataError, match="no data set whose images are specified"):
        NoiseImages("cifra10")
    with pytest.raises(ValueError, match="num_images = 0"):
        NoiseImages("cifar10", num_images=0)
