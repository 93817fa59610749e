"""Maps of a network, one after the other, and how timm describes them."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def maps_along(stages: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, ...]:
    """Returns what each of the stages makes of what the one before it made, the first of them of x."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return tuple(maps)


def halved_maps(channels: Iterable[int], module: str, *, finest: int = 1) -> list[dict[str, Any]]:
    """Returns the `feature_info` of maps each of which has half the height and width of the one before.

    Args:
        channels: of each.
        module: the name of what it comes from, with {} for its place, counted from 0.
        finest: pixels of the image per pixel of the first one, along each side.

    """
    return [
        {"num_chs": width, "reduction": finest * 2**place, "module": module.format(place)}
        for place, width in enumerate(channels)
    ]
