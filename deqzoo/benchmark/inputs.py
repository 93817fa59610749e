"""What a network takes, read back from timm's description that it carries."""

from typing import Any

from torch import Tensor

from deqzoo.data import normalise, to_float
from deqzoo.errors import StructureError
from deqzoo.models import InputSpec


def input_spec(net: Any) -> InputSpec:
    """Returns the inputs and labels of a network of the zoo; labels without a name are numbered.

    Raises:
        StructureError: if the network carries no description.
    """
    cfg = getattr(net, "pretrained_cfg", None)
    if not cfg:
        raise StructureError(
            f"{type(net).__name__} carries no pretrained_cfg, which says how its images are prepared. Make "
            "it with deqzoo.create_model or deqzoo.load."
        )
    channels, height, width = cfg["input_size"]
    return InputSpec(
        dataset=cfg["tag"],
        size=(height, width),
        channels=channels,
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        label_names=tuple(cfg.get("label_names") or map(str, range(cfg["num_classes"]))),
        license="",
    )


def prepared(images: Tensor, spec: InputSpec) -> Tensor:
    """Returns uint8 images (B, C, H, W) as a network of that spec takes them."""
    return normalise(to_float(images), spec.mean, spec.std)
