"""Common corruptions of images at five severities: noise, blur, changes of light, and compression.

Kinds and amounts are those of CIFAR-10-C (Hendrycks and Dietterich, arXiv:1903.12261), computed by torch and
torchvision from a seed: its files are alike, and not the same. What is said in pixels is for images of 32 pixels, and
grows with them.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as TF

from deqzoo.data.batches import derive_seed
from deqzoo.data.image_set import to_float

SEVERITIES = (1, 2, 3, 4, 5)

Change: TypeAlias = Callable[[Tensor, float, Generator], Tensor]
"""Images (B, C, H, W) in [0, 1], an amount -> images, of which values outside of [0, 1] are cut off."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        change: what it does.
        amounts: for each severity.
    """

    change: Change
    amounts: tuple[float, ...]


def corrupted(images: Tensor, kind: str, severity: int, *, seed: int = 0) -> Tensor:
    """Returns uint8 images (B, C, H, W), corrupted. Equal arguments give equal images.

    Args:
        images: (B, C, H, W) uint8.
        kind: a key of `CORRUPTIONS`.
        severity: from 1 to 5.
        seed: of what is drawn.

    Raises:
        ValueError: if there is no such kind or severity.
    """
    if kind not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(
            f"Got corruption {kind!r} of severity {severity!r}. There are {', '.join(CORRUPTIONS)}, of severity 1 to "
            "5: choose among those."
        )
    generator = torch.Generator().manual_seed(derive_seed("corruption", kind, severity, seed))
    found = CORRUPTIONS[kind]
    changed = found.change(to_float(images.cpu()), found.amounts[severity - 1], generator)
    return _to_bytes(changed).to(images.device)


def _to_bytes(images: Tensor) -> Tensor:
    return (255 * images.clamp(0, 1)).round().to(torch.uint8)


def _gaussian_noise(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Adds noise of standard deviation `amount`."""
    return x + amount * torch.randn(x.shape, generator=generator)


def _shot_noise(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Counts photons, of which a white pixel receives `amount` in the mean."""
    return torch.poisson(amount * x, generator=generator) / amount


def _impulse_noise(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Makes the share `amount` of all values black or white, at even odds."""
    hit = torch.rand(x.shape, generator=generator)
    return torch.where(hit < amount, (hit < amount / 2).to(x.dtype), x)


def _blur(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Blurs by a Gaussian of so many pixels of 32."""
    sigma = amount * x.shape[-1] / 32
    size = 2 * math.ceil(4 * sigma) + 1
    return TF.gaussian_blur(x, [size, size], [sigma, sigma])


def _contrast(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Shrinks the distance of every value to the mean of its channel by `amount`."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + amount * (x - mean)


def _brightness(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Adds `amount` to the value, in the sense of HSV; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    brighter = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * (brighter / value.clamp(min=1e-6)), brighter)


def _pixelate(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Averages over pixels `1 / amount` as large."""
    height, width = x.shape[2:]
    small = int(amount * width), int(amount * height)
    box = Image.Resampling.BOX
    return _each(x, lambda picture: picture.resize(small, box).resize((width, height), box))


def _jpeg(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """Compresses at the quality `amount`."""

    def compressed(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(amount))
        return Image.open(file)

    return _each(x, compressed)


def _each(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Returns images, each changed as a picture of bytes, grey or RGB."""
    pictures = [Image.fromarray(image.squeeze(-1).numpy()) for image in _to_bytes(x).permute(0, 2, 3, 1)]
    changed = torch.stack([torch.from_numpy(np.array(change(picture))) for picture in pictures])
    return to_float(changed.unsqueeze(-1) if changed.ndim == 3 else changed).permute(0, 3, 1, 2)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian-noise": Corruption(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot-noise": Corruption(_shot_noise, (500, 250, 100, 75, 50)),
    "impulse-noise": Corruption(_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "blur": Corruption(_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "pixelate": Corruption(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": Corruption(_jpeg, (80, 65, 58, 50, 40)),
}
"""Kinds by name."""
