"""What classifiers by one equilibrium of several scales have in common, however they feed it."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from deqzoo.models.classifier import Classifier
from deqzoo.models.maps import halved_maps
from deqzoo.models.mdeq_parts import check_stride
from deqzoo.nn import ImplicitModule


class Multiscale(Classifier):
    """Images -> injection -> an equilibrium of one map per scale -> head over all scales.

    Args:
        channels: of each scale, finest first; each scale has half the height and width of the one before.
        finest: pixels of the image per pixel of the finest scale, along each side.
        in_chans: channels of its images.
        num_classes: logits to give.
        num_features: channels that the head gives to the classifier.

    """

    fixed_input_size = False  # multiples of the coarsest scale's stride
    layers: ClassVar[dict[str, str]] = {"stem": r"^(?:stem|inject)", "equilibrium": r"^equilibrium", "head": r"^head"}
    equilibrium: ImplicitModule
    head: nn.Module

    def __init__(
        self, channels: Sequence[int], *, finest: int, in_chans: int, num_classes: int, num_features: int
    ) -> None:
        super().__init__(in_chans=in_chans, num_classes=num_classes, num_features=num_features)
        self._scales = halved_maps(channels, "equilibrium", finest=finest)

    @abc.abstractmethod
    def injection(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) images -> what the equilibrium is fed with."""

    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) images -> the equilibrium, a map (B, Cᵢ, Hᵢ, Wᵢ) for each scale.

        Raises:
            StructureError: if height or width is no multiple of the coarsest scale's stride.

        """
        check_stride(x, self._scales[-1]["reduction"])
        return self.equilibrium(*self.injection(x))

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        return [dict(scale) for scale in self._scales]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head:
            self.head = nn.Identity()
        return chosen
