"""Cutting random parts out of pictures of any size, before they are scaled to the size of a batch."""

import math
import random
from dataclasses import dataclass

_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Rectangles of random area, shape and place in a picture.

    After Szegedy et al. 2015, "Going deeper with convolutions", section 6, whose smallest area was 0.08.

    Attributes:
        min_area: of the rectangle, as a share of the picture, in (0, 1].
        max_ratio: of its sides, 1 for squares.
    """

    min_area: float = 0.35
    max_ratio: float = 4 / 3

    def __post_init__(self) -> None:
        if not (0 < self.min_area <= 1 and self.max_ratio >= 1):
            raise ValueError(
                f"min_area = {self.min_area}, max_ratio = {self.max_ratio}. The first is a share in (0, 1], the other "
                "the longer side by the shorter, 1 or more: correct the value."
            )

    def box(self, width: int, height: int, seed: int) -> tuple[int, int, int, int]:
        """Returns left, upper, right and lower edge of a rectangle in a picture of `width` by `height` pixels.

        The same seed gives the same rectangle. Where no rectangle of the wanted area and shape fits, it is the
        largest of an allowed shape in the centre.
        """
        draw = random.Random(seed)
        for _ in range(_ATTEMPTS):
            area = width * height * draw.uniform(self.min_area, 1)
            ratio = self.max_ratio ** draw.uniform(-1, 1)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, upper = draw.randint(0, width - w), draw.randint(0, height - h)
                return left, upper, left + w, upper + h
        w = min(width, max(1, round(height * self.max_ratio)))
        h = min(height, max(1, round(width * self.max_ratio)))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h
