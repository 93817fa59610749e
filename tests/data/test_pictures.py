"""Pictures as people have them."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import deqzoo
from deqzoo.data import open_image, to_pixels
from deqzoo.errors import DataError


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path):
    picture = Image.new("L", (20, 10), 0)
    picture.paste(255, (0, 0, 10, 10))  # its left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "phone.png", exif=exif)
    pixels = to_pixels(open_image(tmp_path / "phone.png"), channels=1, size=(20, 10))
    assert (pixels[0, :10] == 255).all()
    assert (pixels[0, 10:] == 0).all()


def test_what_is_transparent_is_white():
    for mode, ink in (("RGBA", (0, 0, 0, 255)), ("LA", (0, 255))):
        picture = Image.new(mode, (8, 8), (0,) * len(mode))
        picture.paste(ink, (2, 2, 6, 6))
        pixels = to_pixels(picture, channels=1, size=(8, 8))[0]
        assert (pixels[2:6, 2:6] == 0).all()
        assert pixels.sum() == 255 * (64 - 16)


def test_models_see_the_same(tmp_path: Path):
    model = deqzoo.load("pcdeq-mnist-linear")
    picture = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (10, 4, 18, 24))
    assert len(model.transform(picture).unique()) == 2
    assert torch.equal(model.transform(picture), model.transform(picture.convert("RGBA")))


@pytest.mark.parametrize("given", ["digit.png", torch.zeros(1, 28, 28), torch.zeros(28, 28).numpy()])
def test_what_is_no_picture_is_named(given):
    with pytest.raises(DataError, match=rf"Got a {type(given).__name__} for a picture.*PIL\.Image\.open"):
        deqzoo.load("pcdeq-mnist").transform(given)
