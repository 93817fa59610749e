"""Explicit networks for small images, to compare implicit ones with.

After He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", of timm's blocks. Their stem is a
single 3x3 convolution and there is no pooling before the head: small images have no resolution to give away.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from torch import Tensor, nn

from deqzoo.models.classifier import Classifier
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.models.maps import halved_maps, maps_along
from deqzoo.models.paper import Paper
from deqzoo.models.registry import Sizes, register

PAPER = Paper(
    key="he2016deep",
    title="Deep Residual Learning for Image Recognition",
    authors="He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian",
    venue="IEEE Conference on Computer Vision and Pattern Recognition",
    year=2016,
    arxiv="1512.03385",
)


class SmallResNet(Classifier):
    """Stages of residual blocks of two convolutions; each stage but the first halves the maps.

    Args:
        widths: channels of each stage.
        blocks: in each stage.
        in_chans: channels of its images.
        num_classes: logits to give.
        dropout: probability to drop a value behind a stage, or of the pooled features.

    """

    fixed_input_size = False
    layers: ClassVar[dict[str, str]] = {"stem": r"^stem", "stages": r"^stages\.(\d+)\.(\d+)"}

    def __init__(
        self, widths: Sequence[int], *, blocks: int, in_chans: int = 3, num_classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=widths[-1])
        self.widths = tuple(widths)
        self.stem = nn.Sequential(*conv_norm_relu(conv(in_chans, widths[0], 3)))
        pairs = enumerate(zip((widths[0], *widths), widths, strict=False))
        self.stages = nn.Sequential(*(_stage(a, b, blocks, halve=i > 0, dropout=dropout) for i, (a, b) in pairs))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return halved_maps(self.widths, "stages.{}")

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return maps_along(self.stages, self.stem(x))

    def pool(self, features: Tensor) -> Tensor:
        return self.dropout(super().pool(features))


def _stage(before: int, width: int, blocks: int, *, halve: bool, dropout: float) -> nn.Sequential:
    # timm takes half a second to import.
    from timm.models.resnet import BasicBlock, downsample_conv

    stride = 2 if halve else 1
    shortcut = downsample_conv(before, width, kernel_size=1, stride=stride) if halve else None
    first = BasicBlock(before, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)), nn.Dropout(dropout))


_RESNET18 = (64, 128, 256, 512)
_RESNET14 = (16, 32, 62)  # 64 would be 175,258 parameters
_RESNET14_FINE = (32, 46)  # 48 would be 176,810
_NOAUG_DROPOUT = 0.1  # that of mdeq-cifar-tiny-noaug


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet18-cifar", paper=PAPER)
def resnet18_cifar(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: ResNet-18 with a stem for small images."""
    return SmallResNet(_RESNET18, blocks=2, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet18-cifar-tiny", paper=PAPER)
def resnet18_cifar_tiny(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: the network of resnet18-cifar, trained for a few hours on one core of a CPU."""
    return SmallResNet(_RESNET18, blocks=2, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet20-cifar", paper=PAPER)
def resnet20_cifar(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: ResNet-20, with convolutions as shortcuts."""
    return SmallResNet((16, 32, 64), blocks=3, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet14-cifar", paper=PAPER)
def resnet14_cifar(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline of as many parameters as mdeq-cifar-tiny: a residual network of six blocks."""
    return SmallResNet(_RESNET14, blocks=2, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet14-cifar-noaug", paper=PAPER)
def resnet14_cifar_noaug(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: the network of resnet14-cifar with dropout, trained on the images as they are."""
    return SmallResNet(_RESNET14, blocks=2, dropout=_NOAUG_DROPOUT, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet14-cifar-fine", paper=PAPER)
def resnet14_cifar_fine(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline of as many parameters and operations as mdeq-cifar-tiny: six blocks, none on small maps."""
    return SmallResNet(_RESNET14_FINE, blocks=3, **sizes)


@register(task="image-classification", dataset="cifar10", recipe="baselines/resnet14-cifar-fine-noaug", paper=PAPER)
def resnet14_cifar_fine_noaug(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: the network of resnet14-cifar-fine with dropout, trained on the images as they are."""
    return SmallResNet(_RESNET14_FINE, blocks=3, dropout=_NOAUG_DROPOUT, **sizes)


@register(task="image-classification", dataset="mnist", recipe="baselines/resnet8-mnist", paper=PAPER)
def resnet8_mnist(**sizes: Unpack[Sizes]) -> SmallResNet:
    """An explicit baseline: a residual network of three blocks."""
    return SmallResNet((16, 32, 64), blocks=1, **{"in_chans": 1, **sizes})
