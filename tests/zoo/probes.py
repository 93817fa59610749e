"""Small networks under names of their own."""

from typing import Unpack

from torch import Tensor, nn

from deqzoo.models import Runtime, register
from deqzoo.models.pcdeq import PcDEQ


@register(task="image-classification", dataset="mnist", recipe="zoo-probe")
def zoo_probe(**runtime: Unpack[Runtime]) -> PcDEQ:
    """A convolutional probe of 4 channels.

    Only tests meet it.
    """
    return PcDEQ((4,), image_size=28, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="cifar10")
def zoo_probe_rgb(**runtime: Unpack[Runtime]) -> PcDEQ:
    """A probe for coloured images."""
    return PcDEQ((4,), image_size=32, **runtime)


@register(task="image-classification", dataset="mnist")
def zoo_probe_dense(**runtime: Unpack[Runtime]) -> PcDEQ:
    """A probe whose first layer is a matrix."""
    return PcDEQ((5,), image_size=28, dense=True, activation="tanh", **{"in_chans": 1, **runtime})


class Affine(nn.Module):
    """A network with every kind of tensor that a state dict holds: parameters, float and integer buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x))
