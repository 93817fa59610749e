"""Pictures in files or in memory, as the uint8 tensors that data sets hold."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from deqzoo.errors import DataError
from deqzoo.models.input_spec import InputSpec


def open_image(path: Path) -> Image.Image:
    """Returns the decoded picture in a file.

    Raises:
        DataError: if the file is missing, no image, damaged, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as file:
            image = file.copy()  # which decodes it
    except FileNotFoundError as error:
        raise DataError(f"There is no {path.absolute()}. Correct the path.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} could not be decoded: {error}. Every image file must be complete: replace or remove it."
        ) from error
    _check_depth(image, str(path))
    return image


def to_pixels(
    image: Image.Image,
    *,
    channels: int,
    size: tuple[int, int],
    box: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """Returns a picture as uint8 (C, H, W).

    It is turned as its camera was held, and what is transparent is white. One of another size is scaled until it covers
    the wanted one (bicubic), then cut to its centre.

    Args:
        image: of any colours.
        channels: 1 for grey, 3 for RGB.
        size: height and width.
        box: left, upper, right and lower edge of a part that is stretched to the size instead.

    Raises:
        DataError: for what is no PIL image, and for pixels of more than 8 bits, whose range is not known.
    """
    _check_depth(image, "An image")
    height, width = size
    image = _on_paper(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    if box is not None:
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    elif image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1).contiguous()


def read_image(path: Path, spec: InputSpec) -> Tensor:
    """Returns a file's picture as uint8 (C, H, W) in the channels and size of `spec`.

    Raises:
        DataError: if the file is no image, damaged, or has more than 8 bits per channel.
    """
    return to_pixels(open_image(path), channels=spec.channels, size=spec.size)


def _on_paper(image: Image.Image) -> Image.Image:
    """Returns a picture on white where it is transparent: colours behind nothing are often black."""
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image
    ink = image.convert("RGBA")
    paper = Image.new("RGBA", ink.size, "white")
    paper.alpha_composite(ink)
    return paper


def _check_depth(image: Image.Image, called: str) -> None:
    if not isinstance(image, Image.Image):
        raise DataError(
            f"Got a {type(image).__name__} for a picture. It is made of a PIL image: use PIL.Image.open for a file, "
            "PIL.Image.fromarray for an array of bytes."
        )
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{called} has pixels of mode {image.mode!r}. Images have 8 bits per channel: convert it first."
        )
