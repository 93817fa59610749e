"""Augmentations of whole batches, with a decision of its own for every sample.

An augmentation is a value that is called with float images (B, C, H, W) and a generator on their device.
It returns new images of the same shape and type and draws from nothing but the generator. Images are in
[0, 1], not yet normalised, so that whatever comes in from outside is black. Parameters at their zero change
nothing.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


class Augmentation(ABC):
    """Maps a batch of images to a randomly changed one."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Returns changed images.

        Args:
            images: (B, C, H, W) floating, in [0, 1].
            generator: on the device of the images.
        """


def _uniform(images: Tensor, generator: Generator, *size: int) -> Tensor:
    """Returns numbers from [−1, 1) of shape (B, *size), on the device of the images, float32."""
    return torch.rand(len(images), *size, device=images.device, generator=generator).mul_(2).sub_(1)


def _check(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ValueError(f"{name} = {value!r}. {name} must be {rule}: 0 switches it off.")


@dataclass(frozen=True, kw_only=True)
class RandomShift(Augmentation):
    """Moves every image by whole pixels.

    Attributes:
        pixels: most pixels along each axis.
        padding: what comes in: "zeros", or the image mirrored at its edge ("reflect").
    """

    pixels: int
    padding: Literal["zeros", "reflect"] = "zeros"

    def __post_init__(self) -> None:
        _check(self.pixels >= 0, "pixels", self.pixels, "a number of pixels, 0 or more")
        if self.padding not in ("zeros", "reflect"):
            raise ValueError(f"padding = {self.padding!r}. There are two kinds of padding: use 'zeros' or 'reflect'.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        mode = "constant" if self.padding == "zeros" else "reflect"
        padded = F.pad(images, [self.pixels] * 4, mode=mode)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2p+1, 2p+1, H, W), a view
        offsets = torch.randint(2 * self.pixels + 1, (2, batch), device=images.device, generator=generator)
        return windows[torch.arange(batch, device=images.device), :, offsets[0], offsets[1]]


@dataclass(frozen=True, kw_only=True)
class RandomFlip(Augmentation):
    """Mirrors images left to right.

    Attributes:
        p: probability for each image.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, "p", self.p, "a probability from 0 to 1")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) < self.p
        return torch.where(chosen, images.flip(-1), images)


@dataclass(frozen=True, kw_only=True)
class RandomAffine(Augmentation):
    """Rotates, shears, scales and moves every image about its centre, in one bilinear resampling.

    Every amount is uniform between − and + the attribute.

    Attributes:
        degrees: of rotation.
        translate: pixels along each axis.
        scale: s draws a zoom between 1 − s and 1 + s.
        shear: degrees, horizontal.
    """

    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        _check(self.degrees >= 0, "degrees", self.degrees, "an angle of 0 or more")
        _check(self.translate >= 0, "translate", self.translate, "a number of pixels, 0 or more")
        _check(0 <= self.scale < 1, "scale", self.scale, "at least 0 and below 1")
        _check(0 <= self.shear < 90, "shear", self.shear, "an angle of at least 0 and below 90")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[-2:]
        angle, shear, zoom, right, down = _uniform(images, generator, 5).unbind(1)
        angle = angle * math.radians(self.degrees)
        slope = torch.tan(shear * math.radians(self.shear))
        zoom = 1 + zoom * self.scale
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        # Where an output pixel comes from, in pixels from the centre. The grid has units of half an image,
        # hence the aspect ratio beside the diagonal.
        rows = [cos, (cos * slope - sin) * (height / width), right * self.translate * (2 / width)]
        columns = [sin * (width / height), sin * slope + cos, down * self.translate * (2 / height)]
        theta = torch.stack([*rows, *columns], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


@dataclass(frozen=True, kw_only=True)
class ElasticDeform(Augmentation):
    """Displaces pixels by a smooth random field, as handwriting varies.

    The field is white noise smoothed by a Gaussian of width σ, scaled to variance α² at every pixel.
    After Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual
    document analysis", 2003; their α multiplies the noise after smoothing, so that its effect depends on σ.

    Attributes:
        alpha: α, root mean square of the displacement along each axis, in pixels.
        sigma: σ in pixels; small values tear an image, large ones only move it.
    """

    alpha: float = 1.0
    sigma: float = 4.0

    def __post_init__(self) -> None:
        _check(self.alpha >= 0, "alpha", self.alpha, "a number of pixels, 0 or more")
        if self.sigma <= 0:
            raise ValueError(
                f"sigma = {self.sigma!r}. The field is smoothed over a positive length: use 3 to 6 pixels."
            )

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        noise = torch.randn(batch, 2, height, width, device=images.device, generator=generator)
        field = self._smoother(height, images) @ noise @ self._smoother(width, images).T
        pixels_to_grid = torch.tensor([2 * self.alpha / width, 2 * self.alpha / height], device=images.device)
        theta = torch.eye(2, 3, device=images.device).expand(batch, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        grid = torch.addcmul(grid, field.permute(0, 2, 3, 1), pixels_to_grid)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=False)

    def _smoother(self, size: int, images: Tensor) -> Tensor:
        """Returns the (size, size) Gaussian matrix. Rows of norm 1 keep the variance of white noise."""
        x = torch.arange(size, device=images.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * ((x[:, None] - x) / self.sigma) ** 2)
        return F.normalize(kernel, dim=1)


@dataclass(frozen=True, kw_only=True)
class Cutout(Augmentation):
    """Blackens one square at a random place of every image (DeVries and Taylor, arXiv:1708.04552).

    Its centre is uniform over the image, so that squares near an edge are cut by it.

    Attributes:
        size: edge of the square in pixels.
        p: probability for each image.
    """

    size: int
    p: float = 1.0

    def __post_init__(self) -> None:
        _check(self.size >= 0, "size", self.size, "a number of pixels, 0 or more")
        _check(0 <= self.p <= 1, "p", self.p, "a probability from 0 to 1")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        y, x, chance = torch.rand(3, batch, 1, device=images.device, generator=generator)
        rows = self._covered(y, height)[:, None, :, None]
        columns = self._covered(x, width)[:, None, None, :]
        return images.masked_fill(rows & columns & (chance < self.p)[:, :, None, None], 0)

    def _covered(self, centre: Tensor, length: int) -> Tensor:
        """Returns which of `length` pixels a square covers, (B, length), for its centre (B, 1) in [0, 1)."""
        first = (centre * length).floor() - self.size // 2
        pixels = torch.arange(length, device=centre.device)
        return (pixels >= first) & (pixels < first + self.size)
