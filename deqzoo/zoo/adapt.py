"""Weights for other numbers of channels and classes than they were trained for."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deqzoo.errors import WeightsError
from deqzoo.zoo.layout import classifier_name, first_layer


def adapted_channels(tensors: Mapping[str, Tensor], old: Any, new: Any) -> dict[str, Tensor]:
    """Returns the tensors of network `old` with its first layer as `new`, of other `in_chans`, needs it.

    Raises:
        WeightsError: if the first layer's weight cannot be found under its own name.
    """
    key = f"{first_layer(old)}.weight"
    if key not in tensors:
        raise WeightsError(
            f"The first layer of {type(old).__name__} has no tensor {key!r} that could be adapted to "
            f"in_chans={new.in_chans}. Only plain first layers can: load it with in_chans={old.in_chans}."
        )
    return {**tensors, key: adapt_channels(tensors[key], old.in_chans, new.in_chans)}


def adapt_channels(weight: Tensor, old: int, new: int) -> Tensor:
    """Returns a first layer's weight for another number of channels, so that grey images give what they gave.

    One channel gets the sum over the old ones; several get the old ones in turn, times old / new. The rule
    is timm's, applied to matrices as well: their columns are pixels, channel by channel.

    Args:
        weight: (O, old, …) of a convolution or (O, old · H · W) of a matrix.
        old: channels it has.
        new: channels it shall have.
    """
    split = weight.float().reshape(weight.shape[0], old, -1)
    tiled = split[:, [i % old for i in range(new)]] * (old / new)
    split = split.sum(1, keepdim=True) if new == 1 else tiled
    shape = (-1, new * split.shape[-1]) if weight.ndim == 2 else (-1, new, *weight.shape[2:])
    return split.reshape(shape).to(weight.dtype)


def without_head(tensors: Mapping[str, Tensor], net: Any) -> dict[str, Tensor]:
    """Returns tensors in which the head is that of `net`."""
    prefix = f"{classifier_name(net)}."
    kept = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    return kept | {k: v for k, v in net.state_dict().items() if k.startswith(prefix)}
