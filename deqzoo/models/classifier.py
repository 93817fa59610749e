"""What every image classifier of the zoo can do, in timm's words."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deqzoo.adjoints import Unrolled
from deqzoo.errors import StructureError
from deqzoo.nn import equilibria
from deqzoo.ode import Unrolled as ODEUnrolled


class Classifier(nn.Module, abc.ABC):
    """An image classifier: maps at several places or scales, features made of them, then a linear head `fc`.

    Args:
        in_chans: channels of its images.
        num_classes: logits to give; 0 for pooled features instead.
        num_features: length of the pooled features.

    Attributes:
        pretrained_cfg: timm's description of the inputs; filled in for named models.
        fixed_input_size: whether images of one size are all it takes.
        layers: regular expressions for the names of parameters, from the images on, as timm's `group_matcher` gives
            them; groups of digits count layers, and what matches none comes last.

    """

    fixed_input_size: bool = True
    layers: ClassVar[dict[str, str]] = {}

    def __init__(self, *, in_chans: int, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_features = num_features
        self.pretrained_cfg: dict[str, Any] = {}
        self.reset_classifier(num_classes)

    @property
    def guarantee(self) -> str | None:
        """What is certain of its solves, whatever the weights and the images, in sentences; None for nothing."""
        return None

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Describes the maps, as timm does; none for vectors.

        Of each the channels (num_chs), how many pixels of the image are one of its own along each side (reduction), and
        the module it comes from.
        """
        return []

    @abc.abstractmethod
    def forward_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) images -> the maps (B, Cᵢ, Hᵢ, Wᵢ) of `feature_info`; vectors where there are no maps."""

    def gather(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps -> features (B, ...) before pooling: the last of them, if nothing else is said."""
        return maps[-1]

    def pool(self, features: Tensor) -> Tensor:
        """Features (B, ...) -> (B, num_features): their mean over height and width, if nothing else is said."""
        return features.mean((2, 3))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images -> features (B, ...) before pooling."""
        return self.gather(self.forward_maps(x))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, ...) -> logits (B, num_classes), or (B, num_features) before the last layer."""
        pooled = self.pool(features)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> logits (B, num_classes).

        Raises:
            StructureError: for anything but a floating batch of images with the channels of this network.

        """
        self._check_images(x)
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Returns the features and the maps at `indices`, or these maps alone.

        Args:
            x: (B, C, H, W) normalised images.
            indices: of `feature_info`, or how many of the last; None for all.
            norm: has nothing to act on, since no norm follows the maps.
            stop_early: changes nothing, since all maps are of one solve or needed for the next.
            output_fmt: "NCHW".
            intermediates_only: leaves out the features.

        Raises:
            StructureError: if the network has no maps, or no such ones; and as in `forward`.

        """
        if output_fmt != "NCHW":
            raise StructureError(f"Got output_fmt={output_fmt!r}. Maps are (B, C, H, W): leave it at 'NCHW'.")
        chosen = self._chosen(indices)
        self._check_images(x)
        maps = self.forward_maps(x)
        intermediates = [maps[i] for i in chosen]
        return intermediates if intermediates_only else (self.gather(maps), intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the head, which intermediate maps do not need, and returns the indices, counted from the front."""
        chosen = self._chosen(indices)
        if prune_head:
            self.reset_classifier(0)
        return chosen

    def get_classifier(self) -> nn.Module:
        """Returns the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a fresh one, where the weights are; by the identity for num_classes = 0."""
        if num_classes < 0:
            raise ValueError(f"Got num_classes={num_classes}. Use a positive number, or 0 for pooled features.")
        self.num_classes = num_classes
        like = next(self.parameters(), None)
        where: dict[str, Any] = {} if like is None else {"device": like.device, "dtype": like.dtype}
        self.fc = nn.Linear(self.num_features, num_classes, **where) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Returns `layers`, to which timm applies layer-wise learning rates."""
        return dict(self.layers)

    def no_weight_decay(self) -> set[str]:
        """Returns the names of parameters that weight decay should leave alone; see `is_vector`."""
        return {name for name, parameter in self.named_parameters() if is_vector(parameter)}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Does nothing where the adjoint keeps no steps of the solves to begin with.

        Raises:
            StructureError: if it does keep them.

        """
        adjoints = [module.adjoint for module in equilibria(self).values()]
        for kind, better in ((Unrolled, "Implicit()"), (ODEUnrolled, "deqzoo.ode.Checkpointed()")):
            if enable and any(isinstance(adjoint, kind) for adjoint in adjoints):
                raise StructureError(
                    "The steps of the solves are kept by adjoint=Unrolled(), which has no checkpoints. Memory that "
                    "does not grow with the steps comes from the adjoint: load or create the network with "
                    f"adjoint={better}."
                )

    def _chosen(self, indices: int | Sequence[int] | None) -> list[int]:
        count = len(self.feature_info)
        if not count:
            raise StructureError(
                f"This {type(self).__name__} computes vectors and has no intermediate maps. Take its features from "
                "forward_features, or a network of convolutions."
            )
        wanted = list(range(count)) if indices is None else indices
        wanted = list(range(-wanted, 0)) if isinstance(wanted, int) else list(wanted)
        if not wanted or any(not -count <= i < count for i in wanted):
            raise StructureError(
                f"Got indices {indices} for {count} maps. They count from 0 to {count - 1}, or back from -1: "
                f"choose among them, or how many of the last, 1 to {count}."
            )
        return [i % count for i in wanted]

    def _check_images(self, x: Tensor) -> None:
        takes = f"{type(self).__name__} takes batches of images (B, {self.in_chans}, H, W)"
        if not isinstance(x, Tensor):
            raise StructureError(
                f"Found an input of type {type(x).__name__}. {takes} as tensors: pass PIL images through the model's "
                "`.transform`, and arrays through torch.from_numpy."
            )
        if x.ndim != 4:
            raise StructureError(
                f"Found an input of shape {tuple(x.shape)}. {takes}: one image becomes one by `x[None]`."
            )
        if x.shape[1] != self.in_chans:
            hint = "make them with the model's `.transform`, or load it with in_chans= and train it further"
            if x.shape[3] == self.in_chans:
                hint = "the channels come before height and width by `x.permute(0, 3, 1, 2)`"
            raise StructureError(
                f"Found images of {x.shape[1]} channels, in an input of shape {tuple(x.shape)}. {takes}: {hint}."
            )
        if not x.is_floating_point():
            raise StructureError(
                f"Found images of dtype {x.dtype}. {type(self).__name__} takes normalised floating-point images: "
                "pass PIL images through the model's `.transform`, or scale to [0, 1] and normalise."
            )
        dtype = next(self.parameters()).dtype
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise StructureError(
                f"Found images of dtype {x.dtype} for weights of {dtype}. They have to agree outside of autocast: "
                "convert the images with `.to(...)`, or the model with `.float()`, `.double()` or the like."
            )


def is_vector(parameter: Tensor) -> bool:
    """Whether a parameter is a vector up to dimensions of length 1: a bias, the scale of a norm, gains of weights."""
    return sum(length > 1 for length in parameter.shape) <= 1


def check_size(x: Tensor, size: int) -> None:
    """Checks that images (B, C, H, W) are squares of `size` pixels along each side.

    Raises:
        StructureError: if they are not.

    """
    if x.shape[2:] != (size, size):
        raise StructureError(
            f"Found images of {x.shape[2]}x{x.shape[3]} pixels. This network takes {size}x{size}: resize them, as the "
            "model's `.transform` does."
        )
