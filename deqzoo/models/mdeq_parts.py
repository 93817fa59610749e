"""What multiscale equilibrium models are made of: residual blocks, fusion paths, stem and head."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from deqzoo.errors import StructureError
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.nn import weight_normed

_BOTTLENECK = 4
"""Channels that leave a bottleneck per channel inside of it."""


def normed_conv(in_chans: int, out_chans: int, size: int) -> nn.Module:
    """Returns a convolution whose filters have a direction and a gain of their own."""
    return weight_normed(conv(in_chans, out_chans, size))


class ResidualBlock(nn.Module):
    """z ↦ GN(ReLU(z + GN(mask · conv(ReLU(GN(conv(z)))) + injection))), with a wide hidden layer.

    Args:
        width: channels of z.
        expansion: hidden channels per channel of z.
        groups: of the norms.

    """

    def __init__(self, width: int, *, expansion: int, groups: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.expand = nn.Sequential(normed_conv(width, hidden, 3), nn.GroupNorm(groups, hidden), nn.ReLU(inplace=True))
        self.reduce = normed_conv(hidden, width, 3)
        self.norm = nn.GroupNorm(groups, width)
        self.finish = nn.Sequential(nn.ReLU(inplace=True), nn.GroupNorm(groups, width))

    def forward(self, z: Tensor, injection: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            z: the state.
            injection: (B, C, H, W), None for zeros.
            mask: (B, C, 1, 1) of dropout, None for ones.

        """
        y = self.reduce(self.expand(z))
        if mask is not None:
            y = y * mask
        if injection is not None:
            y = y + injection
        return self.finish(self.norm(y) + z)


def fusion_path(channels: Sequence[int], source: int, target: int, *, groups: int) -> nn.Module:
    """Returns what brings the maps of scale `source` to the size and channels of scale `target`.

    To coarser scales, strided convolutions that keep the channels until the last; to finer ones, a 1x1 convolution
    and copies of each pixel; the identity in place.
    """
    before, after = channels[source], channels[target]
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            conv(before, after, 1), nn.GroupNorm(groups, after), nn.Upsample(scale_factor=2 ** (source - target))
        )
    widths = [before] * (target - source) + [after]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [conv(a, b, 3, stride=2), nn.GroupNorm(groups, b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def stem(in_chans: int, width: int, *, halvings: int) -> nn.Sequential:
    """Returns two convolutions of which the first `halvings` halve the size: images (B, in_chans, H, W) -> maps."""
    strides = [2 if i < halvings else 1 for i in range(2)]
    return nn.Sequential(
        *conv_norm_relu(conv(in_chans, width, 3, stride=strides[0])),
        *conv_norm_relu(conv(width, width, 3, stride=strides[1])),
    )


def pixelwise(width: int) -> nn.Sequential:
    """Returns a 1x1 convolution with its norm and ReLU."""
    return nn.Sequential(*conv_norm_relu(conv(width, width, 1)))


def check_stride(x: Tensor, stride: int) -> None:
    """Checks that the sides of images (B, C, H, W) are multiples of `stride`, that of the coarsest scale.

    Raises:
        StructureError: if they are not.

    """
    height, width = x.shape[2:]
    if height % stride or width % stride or not height * width:
        fitting = [max(stride, -(-side // stride) * stride) for side in (height, width)]
        raise StructureError(
            f"Found images of {height}x{width} pixels. A pixel of the coarsest scale covers {stride}x{stride}, so that "
            f"height and width have to be multiples of {stride}: resize or pad the images, to "
            f"{fitting[0]}x{fitting[1]} say."
        )


class _Bottleneck(nn.Module):
    """A bottleneck residual block, (B, C, H, W) -> (B, 4 `inner`, H, W)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        outer = _BOTTLENECK * inner
        self.layers = nn.Sequential(
            conv(width, inner, 1),
            nn.BatchNorm2d(inner, affine=False),
            nn.ReLU(inplace=True),
            conv(inner, inner, 3),
            nn.BatchNorm2d(inner, affine=False),
            nn.ReLU(inplace=True),
            conv(inner, outer, 1),
            nn.BatchNorm2d(outer, affine=False),
        )
        self.shortcut = nn.Identity() if width == outer else nn.Sequential(conv(width, outer, 1), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layers(x) + self.shortcut(x)).relu()


class MultiscaleHead(nn.Module):
    """Maps of all scales, finest first -> one map (B, out_chans, H, W) of the coarsest scale.

    Each scale is widened by a bottleneck; what has been gathered is halved and added to the next coarser one.

    Args:
        channels: of each scale.
        inner: channels inside the bottleneck of each scale; four times as many leave it.
        out_chans: channels of the result.

    """

    def __init__(self, channels: Sequence[int], inner: Sequence[int], out_chans: int) -> None:
        super().__init__()
        self.widen = nn.ModuleList(_Bottleneck(c, i) for c, i in zip(channels, inner, strict=True))
        self.halve = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(conv(_BOTTLENECK * a, _BOTTLENECK * b, 3, stride=2, bias=True)))
            for a, b in pairwise(inner)
        )
        self.final = nn.Sequential(*conv_norm_relu(conv(_BOTTLENECK * inner[-1], out_chans, 1, bias=True)))

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        gathered = self.widen[0](scales[0])
        for widen, halve, z in zip(self.widen[1:], self.halve, scales[1:], strict=True):
            gathered = widen(z) + halve(gathered)
        return self.final(gathered)
