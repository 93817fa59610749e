"""What every image classifier of the zoo can do, in timm's words."""

import abc
from typing import Any

import torch
from torch import Tensor, nn

from deqzoo.errors import StructureError


class Classifier(nn.Module, abc.ABC):
    """An image classifier: features at an equilibrium, then a linear head `fc`.

    Args:
        in_chans: channels of its images.
        num_classes: logits to give; 0 for pooled features instead.
        num_features: length of the pooled features.

    Attributes:
        pretrained_cfg: timm's description of the inputs; filled in for named models.

    """

    def __init__(self, *, in_chans: int, num_classes: int, num_features: int) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.num_features = num_features
        self.pretrained_cfg: dict[str, Any] = {}
        self.reset_classifier(num_classes)

    @abc.abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images -> feature maps or vectors (B, ...) before pooling."""

    @abc.abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """Feature maps or vectors (B, ...) -> (B, num_features)."""

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, ...) -> logits (B, num_classes), or (B, num_features) before the last layer."""
        pooled = self.pool(features)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> logits (B, num_classes).

        Raises:
            StructureError: for anything but a floating batch of images with the channels of this network.

        """
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise StructureError(
                f"Found an input of shape {tuple(x.shape)}. {type(self).__name__} takes batches of images "
                f"(B, {self.in_chans}, H, W): add a batch dimension with `x[None]`, or load it with in_chans=."
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
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Returns the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the last layer by a fresh one; by the identity for num_classes = 0."""
        if num_classes < 0:
            raise ValueError(f"Got num_classes={num_classes}. Use a positive number, or 0 for pooled features.")
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
