"""From pictures to inputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from deqzoo.data import normalise, read_image, to_float
from deqzoo.errors import DataError, StructureError
from deqzoo.models.input_spec import INPUT_SPECS
from deqzoo.tasks import ImageTransform

MNIST = INPUT_SPECS["mnist"]
CIFAR = INPUT_SPECS["cifar10"]


def transform_of(spec) -> ImageTransform:
    cfg = {"input_size": (spec.channels, *spec.size), "mean": spec.mean, "std": spec.std}
    return ImageTransform.from_cfg(cfg)


def picture(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def test_a_grey_image_of_the_right_size_comes_out_exactly():
    pixels = picture(28, 28)
    result = transform_of(MNIST)(Image.fromarray(pixels))
    expected = (torch.from_numpy(pixels).float() / 255 - torch.tensor(0.1307)) / torch.tensor(0.3081)
    assert result.shape == (1, 28, 28)
    assert torch.equal(result[0], expected)


def test_every_channel_has_its_own_mean():
    pixels = picture(32, 32, 3)
    result = transform_of(CIFAR)(Image.fromarray(pixels))
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - CIFAR.mean[channel]) / CIFAR.std[channel]
        np.testing.assert_allclose(result[channel], expected, atol=1e-6)


@pytest.mark.parametrize("spec", [MNIST, CIFAR], ids=lambda spec: spec.dataset)
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (61, 40)], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_it_agrees_with_the_data_modules_bit_for_bit(spec, size, mode, tmp_path):
    image = Image.fromarray(picture(*size, 3)).convert(mode)
    image.save(tmp_path / "image.png")
    from_file = normalise(to_float(read_image(tmp_path / "image.png", spec)[None]), spec.mean, spec.std)[0]
    assert torch.equal(transform_of(spec)(image), from_file)


def test_a_wide_picture_is_cut_to_its_centre():
    pixels = np.zeros((28, 84), dtype=np.uint8)
    pixels[:, 28:56] = 255
    result = transform_of(MNIST)(Image.fromarray(pixels))
    torch.testing.assert_close(result, torch.full((1, 28, 28), (1 - 0.1307) / 0.3081))


def test_sixteen_bit_pixels_are_refused():
    image = Image.fromarray(np.full((28, 28), 40000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"mode 'I;16'.*8 bits per channel: convert"):
        transform_of(MNIST)(image)


def test_an_incomplete_description_is_refused():
    with pytest.raises(StructureError, match=r"has no mean, std.*deqzoo\.create_model"):
        ImageTransform.from_cfg({"input_size": (1, 28, 28)})


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_and_means_must_agree(channels):
    cfg = {"input_size": (channels, 28, 28), "mean": (0.5, 0.5), "std": (0.5, 0.5)}
    with pytest.raises(StructureError, match=f"{channels} channels with mean.*one channel or three"):
        ImageTransform.from_cfg(cfg)
