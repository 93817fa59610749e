"""From pictures to what a network takes."""

from dataclasses import dataclass
from typing import Any, Self

from PIL import Image
from torch import Tensor

from deqzoo.data import normalise, to_float, to_pixels
from deqzoo.errors import StructureError


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """PIL image -> (C, H, W) float32, (pixels / 255 − mean) / std.

    A picture of another size is scaled until it covers the wanted one (bicubic), then cut to its centre.

    Attributes:
        size: height and width.
        mean: of each channel, for pixels in [0, 1]. One channel makes grey images, three RGB.
        std: likewise.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_cfg(cls, cfg: dict[str, Any]) -> Self:
        """Returns the transform that a timm `pretrained_cfg` describes.

        Raises:
            StructureError: if it does not describe one.
        """
        missing = [key for key in ("input_size", "mean", "std") if key not in cfg]
        if missing:
            raise StructureError(
                f"The network's pretrained_cfg has no {', '.join(missing)}. They say how its images are "
                "made: take the network from deqzoo.create_model, or set them as timm does."
            )
        channels, height, width = cfg["input_size"]
        mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
        if channels not in (1, 3) or len(mean) != channels or len(std) != channels:
            raise StructureError(
                f"The network's pretrained_cfg has {channels} channels with mean {mean} and std {std}. "
                "Pictures have one channel or three, each with its own mean and std: correct it, or prepare "
                "the tensors yourself."
            )
        return cls(size=(height, width), mean=mean, std=std)

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the image as the network takes it, without a batch dimension.

        Raises:
            DataError: for what is no PIL image, and for pixels of more than 8 bits, whose range is not known.
        """
        pixels = to_pixels(image, channels=len(self.mean), size=self.size)
        return normalise(to_float(pixels[None]), self.mean, self.std)[0]
