"""Reversible deep equilibrium models (McCallum et al. 2025, arXiv 2509.12917).

Equilibria in sequence, each solved by a few steps that can be undone: gradients are those of the very steps that were
taken, and memory does not grow with them. The sizes are those of the code that the authors published.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Adjoint
from deqzoo.adjoints import Reversible as ReversibleAdjoint
from deqzoo.models.classifier import Classifier
from deqzoo.models.convolutions import conv, conv_norm_relu
from deqzoo.models.maps import halved_maps
from deqzoo.models.paper import Paper
from deqzoo.models.registry import Runtime, register
from deqzoo.nn import Cell, ImplicitModule
from deqzoo.solvers import FixedPointSolver, Reversible

PAPER = Paper(
    key="mccallum2025reversible",
    title="Reversible Deep Equilibrium Models",
    authors="McCallum, Sam and Arora, Kamran and Foster, James",
    venue="arXiv preprint",
    year=2025,
    arxiv="2509.12917",
)

# Four steps, whatever the residual: the network is trained as the few steps that it is.
_REVERSIBLE = Reversible(damping=0.8, rtol=0, max_steps=4)

_UNDO = ReversibleAdjoint()

_GROUP = 16
"""Channels per group of the norms in a cell."""


class RevDEQCell(Cell):
    """z ↦ N(ReLU(z + N(x + V ReLU(N(U z))))) with 3×3 convolutions U, V and group norms N.

    Args:
        width: channels of z.
        expansion: hidden channels per channel of z.

    """

    def __init__(self, width: int, *, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.expand = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.norm_hidden = nn.GroupNorm(hidden // _GROUP, hidden)
        self.reduce = nn.Conv2d(hidden, width, 3, padding=1, bias=False)
        self.norm_branch = nn.GroupNorm(width // _GROUP, width)
        self.norm_out = nn.GroupNorm(width // _GROUP, width)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        branch = self.reduce(F.relu(self.norm_hidden(self.expand(z))))
        return self.norm_out(F.relu(z + self.norm_branch(x + branch)))

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class _Halving(nn.Module):
    """A residual block with norms first that halves height and width."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm_in = nn.BatchNorm2d(before)
        self.conv_in = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.norm_out = nn.BatchNorm2d(after)
        self.conv_out = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_in(x))
        return self.shortcut(x) + self.conv_out(F.relu(self.norm_out(self.conv_in(x))))


class RevDEQ(Classifier):
    """Stem -> stages x + equilibrium(x), with a block that halves the maps between any two -> average -> linear.

    Args:
        widths: channels of each stage.
        expansions: hidden channels of each equilibrium, per channel of its stage.
        in_chans: channels of its images.
        num_classes: logits to give.
        solver: how the equilibria are found.
        adjoint: how gradients pass them.

    """

    fixed_input_size = False
    layers: ClassVar[dict[str, str]] = {"stem": r"^stem", "stages": r"^(?:equilibria|halvings)\.(\d+)"}

    def __init__(
        self,
        widths: Sequence[int],
        expansions: Sequence[int],
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        solver: FixedPointSolver = _REVERSIBLE,
        adjoint: Adjoint = _UNDO,
    ) -> None:
        if not widths or len(widths) != len(expansions):
            raise ValueError(
                f"Got widths={tuple(widths)} and expansions={tuple(expansions)}. Both have one number per stage: give "
                "as many of the one as of the other."
            )
        if any(width % _GROUP for width in widths):
            raise ValueError(
                f"Got widths={tuple(widths)}. Norms divide channels into groups of {_GROUP}: choose multiples of it."
            )
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=widths[-1])
        self.stem = nn.Sequential(*conv_norm_relu(conv(in_chans, widths[0], 3)))
        self.equilibria = nn.ModuleList(
            ImplicitModule(RevDEQCell(width, expansion=expansion), solver=solver, adjoint=adjoint)
            for width, expansion in zip(widths, expansions, strict=True)
        )
        self.halvings = nn.ModuleList(_Halving(before, after) for before, after in pairwise(widths))
        self.widths = tuple(widths)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return halved_maps(self.widths, "equilibria.{}")

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps = []
        for stage, equilibrium in enumerate(self.equilibria):
            x = self.halvings[stage - 1](x) if stage else x
            x = x + equilibrium(x)
            maps.append(x)
        return tuple(maps)


@register(task="image-classification", dataset="cifar10", recipe="revdeq-cifar", paper=PAPER)
def revdeq_cifar(**runtime: Unpack[Runtime]) -> RevDEQ:
    """Four reversible equilibria of 128, 256, 256 and 128 channels, as published."""
    return RevDEQ((128, 256, 256, 128), (1, 3, 3, 1), **runtime)
