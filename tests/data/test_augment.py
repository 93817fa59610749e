"""Augmentations: what they promise, and for each what it does to known images."""

import inspect
import math

import pytest
import torch
from torch import Tensor

import deqzoo.data
from deqzoo.data import Augmentation, Cutout, ElasticDeform, RandomAffine, RandomFlip, RandomShift

STRONG: list[Augmentation] = [
    RandomShift(pixels=3),
    RandomShift(pixels=3, padding="reflect"),
    RandomFlip(p=0.5),
    RandomAffine(degrees=30, translate=2, scale=0.3, shear=20),
    ElasticDeform(alpha=1.5, sigma=2.0),
    Cutout(size=5),
]
NEUTRAL: list[Augmentation] = [
    RandomShift(pixels=0),
    RandomFlip(p=0.0),
    RandomAffine(),
    ElasticDeform(alpha=0.0),
    Cutout(size=0),
    Cutout(size=5, p=0.0),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, *shape, generator=generator(1), dtype=torch.float64).to(dtype)


def test_every_exported_augmentation_is_tested_here():
    exported = {
        value
        for value in vars(deqzoo.data).values()
        if inspect.isclass(value) and issubclass(value, Augmentation) and value is not Augmentation
    }
    assert exported == {type(a) for a in STRONG} == {type(a) for a in NEUTRAL}


@pytest.mark.parametrize("augmentation", STRONG, ids=str)
class TestEvery:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("shape", [(1, 12, 12), (3, 10, 14)], ids=str)
    def test_keeps_shape_type_range_and_its_input(self, augmentation, shape, dtype):
        images = noise(9, *shape, dtype=dtype)
        before = images.clone()
        changed = augmentation(images, generator())
        assert changed.shape == images.shape and changed.dtype == dtype
        assert changed.min() >= 0 and changed.max() <= 1 + 1e-6
        assert torch.equal(images, before) and not torch.equal(changed, before)

    def test_decides_for_every_sample_alone(self, augmentation):
        same = noise(1, 1, 12, 12).expand(16, -1, -1, -1)
        kinds = {tuple(image.flatten().tolist()) for image in augmentation(same, generator())}
        assert len(kinds) >= 2 if isinstance(augmentation, RandomFlip) else len(kinds) >= 8

    def test_draws_from_its_generator_alone(self, augmentation):
        images = noise(8, 1, 12, 12)
        torch.manual_seed(1)
        first = augmentation(images, generator(5))
        torch.manual_seed(2)
        assert torch.equal(first, augmentation(images, generator(5)))
        assert not torch.equal(first, augmentation(images, generator(6)))


@pytest.mark.parametrize("augmentation", NEUTRAL, ids=str)
def test_parameters_of_zero_change_nothing(augmentation):
    images = noise(4, 3, 10, 14)
    torch.testing.assert_close(augmentation(images, generator()), images, atol=1e-5, rtol=0)


def dot(batch: int, height: int, width: int, y: int, x: int) -> Tensor:
    images = torch.zeros(batch, 1, height, width)
    images[:, :, y, x] = 1
    return images


def test_shift_moves_by_whole_pixels_to_every_offset_equally():
    moved = RandomShift(pixels=1)(dot(9000, 5, 7, 2, 3), generator())
    where = moved.flatten(1).argmax(1)
    offsets, counts = torch.stack([where // 7 - 2, where % 7 - 3]).unique(dim=1, return_counts=True)
    assert moved.flatten(1).sum(1).eq(1).all() and offsets.shape == (2, 9)
    assert offsets.abs().max() == 1 and (counts - 1000).abs().max() < 5 * math.sqrt(1000)


def test_shift_brings_in_black_or_the_mirrored_edge():
    ramp = torch.arange(1.0, 6.0).view(1, 1, 1, 5).expand(64, 1, 5, 5)
    rows = {tuple(r) for r in RandomShift(pixels=1)(ramp, generator())[:, 0, 2].tolist()}
    assert rows == {(0, 1, 2, 3, 4), (1, 2, 3, 4, 5), (2, 3, 4, 5, 0)}
    rows = {tuple(r) for r in RandomShift(pixels=1, padding="reflect")(ramp, generator())[:, 0, 2].tolist()}
    assert rows == {(2, 1, 2, 3, 4), (1, 2, 3, 4, 5), (2, 3, 4, 5, 4)}


def test_flip_mirrors_left_to_right_with_its_probability():
    images = noise(4000, 1, 2, 3)
    flipped = (RandomFlip(p=0.25)(images, generator()) != images).flatten(1).any(1)
    assert torch.equal(RandomFlip(p=1.0)(images, generator()), images.flip(-1))
    assert abs(flipped.float().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)


def centre(images: Tensor) -> Tensor:
    """Returns the centre of mass (B, 2) as (y, x) in pixels from the middle."""
    mass = images[:, 0] / images.sum((1, 2, 3))[:, None, None]
    y = torch.arange(images.shape[2]) - (images.shape[2] - 1) / 2
    x = torch.arange(images.shape[3]) - (images.shape[3] - 1) / 2
    return torch.stack([(mass.sum(2) * y).sum(1), (mass.sum(1) * x).sum(1)], 1)


# An image that is no square shows a mistake in the units of the grid: a rotation must not shear.
BLOB_AT = torch.tensor([0.0, 8.0])


def blob(batch: int) -> Tensor:
    images = torch.zeros(batch, 1, 41, 61)
    images[:, :, 19:22, 37:40] = 1  # its centre lies 8 pixels to the right of the middle
    return images


def test_rotation_keeps_the_distance_from_the_centre():
    moved = centre(RandomAffine(degrees=60)(blob(400), generator()))
    angle = torch.rad2deg(torch.atan2(moved[:, 0], moved[:, 1]))
    torch.testing.assert_close(moved.norm(dim=1), torch.full((400,), 8.0), atol=0.1, rtol=0)
    assert angle.abs().max() <= 60.5 and angle.max() > 55 and angle.min() < -55


def test_translation_scale_and_shear_stay_within_their_bounds():
    moved = centre(RandomAffine(translate=5)(blob(400), generator())) - BLOB_AT
    assert (moved.abs().amax(0) > 4.8).all() and (moved.abs().amax(0) <= 5.01).all()
    moved = centre(RandomAffine(scale=0.25)(blob(400), generator()))
    assert moved[:, 0].abs().max() < 0.01
    assert 9.9 < moved[:, 1].max() <= 10.1 and 5.9 <= moved[:, 1].min() < 6.1
    upright = blob(400).transpose(2, 3)  # 8 pixels below the middle
    moved = centre(RandomAffine(shear=45)(upright, generator()))
    torch.testing.assert_close(moved[:, 0], torch.full((400,), 8.0), atol=0.1, rtol=0)
    assert 7.7 < moved[:, 1].abs().max() <= 8.1


def test_elastic_displacement_is_smooth_and_of_the_promised_size():
    ramp = torch.arange(64.0).expand(1, 1, 48, 64) / 64
    shift = (ElasticDeform(alpha=1.5, sigma=4.0)(ramp.repeat(200, 1, 1, 1), generator()) - ramp) * 64
    inner = shift[:, :, 8:-8, 8:-8]  # further out, black comes in
    assert abs(inner.std() - 1.5) < 0.1
    # Noise smoothed by a Gaussian σ has correlation exp(−1/(4σ²)) between neighbours.
    step = (inner[..., 1:] - inner[..., :-1]).square().mean() / inner.var()
    assert step == pytest.approx(2 * (1 - math.exp(-1 / 64)), rel=0.1)


def test_cutout_blackens_one_square_cut_by_the_edge():
    holes = Cutout(size=4)(torch.ones(4000, 2, 9, 11), generator()) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    high, wide = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert torch.equal(holes[:, 0].sum((1, 2)), high * wide)
    assert high.max() == wide.max() == 4 and high.min() == wide.min() == 2
    assert (high == 4).float().mean() == pytest.approx(6 / 9, abs=0.05)
    untouched = (Cutout(size=4, p=0.25)(torch.ones(4000, 1, 9, 11), generator()) == 1).flatten(1).all(1)
    assert untouched.float().mean() == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomShift(pixels=-1), r"pixels = -1. pixels must be a number of pixels, 0 or more"),
        (
            lambda: RandomShift(**{"pixels": 1, "padding": "wrap"}),
            "padding = 'wrap'.*use 'zeros' or 'reflect'",
        ),
        (lambda: RandomFlip(p=1.5), "p = 1.5. p must be a probability"),
        (lambda: RandomAffine(scale=1.0), "scale = 1.0. scale must be at least 0 and below 1"),
        (lambda: RandomAffine(shear=90), "shear = 90"),
        (lambda: ElasticDeform(sigma=0), "sigma = 0.*use 3 to 6 pixels"),
        (lambda: Cutout(size=-2), "size = -2"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
