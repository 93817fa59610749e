"""Neural ODEs (Chen, Rubanova, Bettencourt & Duvenaud 2018, arXiv 1806.07366) and augmented ones (Dupont, Doucet & Teh
2019, arXiv 1904.01681).

Between a stem and a head, maps flow for one unit of time: h' = f(h, t). The flow is invertible and cannot mix what a
stem of so many channels leaves mixed; channels that start at zero, the augmented ones, give it room.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.models.classifier import Classifier
from deqzoo.models.convolutions import conv, conv_norm, conv_norm_relu
from deqzoo.models.maps import halved_maps, maps_along
from deqzoo.models.paper import Paper
from deqzoo.models.registry import ODERuntime, register
from deqzoo.nn import Dynamics, ODEModule
from deqzoo.ode import Checkpointed, DormandPrince, Integrator, ODEAdjoint

PAPER = Paper(
    key="chen2018neural",
    title="Neural Ordinary Differential Equations",
    authors="Chen, Ricky T. Q. and Rubanova, Yulia and Bettencourt, Jesse and Duvenaud, David",
    venue="Advances in Neural Information Processing Systems",
    year=2018,
    arxiv="1806.07366",
)

_DORMAND_PRINCE = DormandPrince(rtol=1e-3, max_steps=200)

_GROUP = 8
"""Channels that are normalised together."""


class _TimedConv(nn.Module):
    """A 3×3 convolution that keeps the size, over the channels and one more that holds the time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels + 1, out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x.dtype)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return self.conv(torch.cat([x, time], dim=1))


class ConvDynamics(Dynamics):
    """f(h, t): norm, SiLU, convolution, norm, SiLU, convolution, norm, with the time at both convolutions.

    Smooth, unlike the published dynamics with ReLU: at kinks an integrator of high order is of low order, so that
    steps get short, and gradients coarse.

    Args:
        channels: of h, a multiple of 8.
        hidden: channels between the convolutions, likewise; by default as many.

    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels
        for name, count in (("channels", channels), ("hidden", hidden)):
            if count % _GROUP or count < _GROUP:
                raise ValueError(
                    f"ConvDynamics got {name}={count}. Channels are normalised in groups of {_GROUP}: use a multiple, "
                    f"such as {max(1, round(count / _GROUP)) * _GROUP}."
                )
        self.norm1 = nn.GroupNorm(channels // _GROUP, channels)
        self.conv1 = _TimedConv(channels, hidden)
        self.norm2 = nn.GroupNorm(hidden // _GROUP, hidden)
        self.conv2 = _TimedConv(hidden, channels)
        self.norm3 = nn.GroupNorm(channels // _GROUP, channels)

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        slope = self.conv1(F.silu(self.norm1(h)), t)
        slope = self.conv2(F.silu(self.norm2(slope)), t)
        return self.norm3(slope)


class _Stage(nn.Module):
    """Strided convolution -> BatchNorm -> flow, in which further channels may start at zero."""

    def __init__(
        self, before: int, width: int, *, stride: int, augment: int, solver: Integrator, adjoint: ODEAdjoint
    ) -> None:
        super().__init__()
        self.entry = nn.Sequential(*conv_norm(conv(before, width, 3, stride=stride)))
        self.augment = augment
        self.flow = ODEModule(ConvDynamics(width + augment), solver=solver, adjoint=adjoint)

    def forward(self, x: Tensor) -> Tensor:
        h = self.entry(x)
        if self.augment:
            h = torch.cat([h, h.new_zeros(h.shape[0], self.augment, *h.shape[2:])], dim=1)
        return self.flow(h)


class NeuralODE(Classifier):
    """Stem of one convolution -> flows in sequence, each at half the size of the last -> norm, average, head.

    Args:
        stem: channels of the stem.
        widths: channels of the flows, multiples of 8.
        stem_stride: of the stem: 1 keeps the size of the image, 2 halves it.
        augment: further channels of each flow, which start at zero; a multiple of 8.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the flows are integrated.
        adjoint: how gradients pass them.

    """

    fixed_input_size = False
    layers: ClassVar[dict[str, str]] = {"stem": r"^stem", "stages": r"^stages\.(\d+)"}

    def __init__(
        self,
        stem: int,
        widths: Sequence[int],
        *,
        stem_stride: int = 1,
        augment: int = 0,
        in_chans: int = 3,
        num_classes: int = 10,
        solver: Integrator = _DORMAND_PRINCE,
        adjoint: ODEAdjoint = Checkpointed(),
    ) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=widths[-1] + augment)
        self.widths = [width + augment for width in widths]
        self.stem_stride = stem_stride
        self.stem = nn.Sequential(*conv_norm_relu(conv(in_chans, stem, 3, stride=stem_stride)))
        before = [stem, *self.widths]
        self.stages = nn.Sequential(
            *(
                _Stage(a, width, stride=2, augment=augment, solver=solver, adjoint=adjoint)
                for a, width in zip(before, widths, strict=False)
            )
        )
        self.norm = nn.GroupNorm(self.num_features // _GROUP, self.num_features)

    @property
    def guarantee(self) -> str:
        return (
            "Every flow exists for the whole unit of time, is unique and can be undone, whatever the weights and the "
            "image: its dynamics are smooth, and the norm at their end bounds them. Integrators keep the error of "
            "each step at their tolerance; the error at the end is not bounded by it."
        )

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return halved_maps(self.widths, "stages.{}", finest=2 * self.stem_stride)

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        return maps_along(self.stages, self.stem(x))

    def pool(self, features: Tensor) -> Tensor:
        return super().pool(F.relu(self.norm(features)))


@register(task="image-classification", dataset="mnist", recipe="node-mnist", paper=PAPER)
def node_mnist(**runtime: Unpack[ODERuntime]) -> NeuralODE:
    """A flow of 64 channels on maps of 7x7, behind two halving convolutions."""
    return NeuralODE(32, (64,), stem_stride=2, **{"in_chans": 1, **runtime})


@register(task="image-classification", dataset="cifar10", recipe="node-cifar", paper=PAPER)
def node_cifar(**runtime: Unpack[ODERuntime]) -> NeuralODE:
    """Two flows, of 40 channels on maps of 16x16 and of 72 on maps of 8x8."""
    return NeuralODE(32, (40, 72), **runtime)
