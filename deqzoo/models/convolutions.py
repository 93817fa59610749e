"""Convolutions as most networks have them: padded, and before a norm without a bias."""

from torch import nn


def conv(in_chans: int, out_chans: int, size: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Returns a convolution of `size` by `size` taps, padded to keep the size of maps, or to halve even sizes."""
    return nn.Conv2d(in_chans, out_chans, size, stride=stride, padding=size // 2, bias=bias)


def conv_norm(layer: nn.Conv2d) -> tuple[nn.Module, ...]:
    """Returns the layers of a convolution with its norm."""
    return layer, nn.BatchNorm2d(layer.out_channels)


def conv_norm_relu(layer: nn.Conv2d) -> tuple[nn.Module, ...]:
    """Returns the layers of a convolution with its norm and ReLU."""
    return *conv_norm(layer), nn.ReLU(inplace=True)
