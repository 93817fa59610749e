"""What is benchmarked: models of the zoo, runs, and any network that timm can make for the same images."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from deqzoo.errors import DataError, StructureError, UnknownModelError, WeightsError
from deqzoo.models import INPUT_SPECS, InputSpec, entry
from deqzoo.nn import equilibria
from deqzoo.tasks import ImageClassifier
from deqzoo.zoo import create_model, load
from deqzoo.zoo.manifest import published
from deqzoo.zoo.stored import HUB_PREFIX, locate

TIMM_PREFIX = "timm:"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network that is benchmarked.

    Attributes:
        name: as it was asked for.
        model: with `.net`, in eval mode.
        trained: whether its weights are; random ones have no accuracy to speak of.
    """

    name: str
    model: Any
    trained: bool

    @property
    def net(self) -> Any:
        """The network."""
        return self.model.net

    @property
    def kind(self) -> Literal["implicit", "explicit"]:
        """Whether it solves equations."""
        return "implicit" if equilibria(self.net) else "explicit"

    @property
    def weights(self) -> Literal["trained", "random"]:
        """Where the weights come from, in a word."""
        return "trained" if self.trained else "random"


def open_subject(name: str, spec: InputSpec) -> Subject:
    """Returns the network that a name means, for images and labels of `spec`.

    Args:
        name: what `deqzoo.load` takes; the name of a model without weights, which gets random ones; or of a network of
            timm: "timm:resnet18" with random weights, "timm:resnet18@weights.pth" with those of a file,
            "timm:resnet18.a1_in1k" with timm's own for ImageNet.
        spec: of the test set.

    Raises:
        UnknownModelError: if nothing has that name.
        WeightsError: if weights do not fit or are missing.
        StructureError: if the network cannot be made for these images.
        DataError: if it is no classifier, or its weights are for other labels.
    """
    if name.startswith(TIMM_PREFIX):
        return _open_timm(name, spec)
    if not name.startswith(HUB_PREFIX):
        known, _ = locate(name)
        if known is not None and published(known) is None:
            return _untrained(name, known, spec)
    model: Any = load(name)
    if not isinstance(model, ImageClassifier):
        raise _no_classifier(name)
    return Subject(name=name, model=model, trained=True)


def _untrained(name: str, known: str, spec: InputSpec) -> Subject:
    found = entry(known)
    if found.dataset not in INPUT_SPECS:
        raise _no_classifier(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = create_model(known, num_classes=len(spec.label_names), in_chans=spec.channels)
    size = tuple(net.pretrained_cfg["input_size"][1:])
    if net.fixed_input_size and size != tuple(spec.size):
        raise StructureError(
            f"{name} takes images of {size[0]}x{size[1]} pixels alone, and those of {spec.dataset} have "
            f"{spec.size[0]}x{spec.size[1]}: benchmark it on {found.dataset}."
        )
    return Subject(name=name, model=ImageClassifier(net).eval(), trained=False)


def _open_timm(name: str, spec: InputSpec) -> Subject:
    import timm  # takes half a second to import

    called, _, file = name.removeprefix(TIMM_PREFIX).partition("@")
    architecture, _, tag = called.partition(".")
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture[:6]}*")[:3]
        raise UnknownModelError(
            f"timm has no network {architecture!r}. {TIMM_PREFIX} is followed by one of its names"
            f"{', such as ' + ', '.join(near) if near else ''}: `timm.list_models()` has them all."
        )
    if tag and spec.dataset != "imagenet-1k":
        raise DataError(
            f"{name} asks for weights of timm that are for other classes than {spec.dataset}'s. Leave .{tag} out for "
            f"random weights, or give a file of weights for {spec.dataset}: {TIMM_PREFIX}{architecture}@FILE."
        )
    options: dict[str, Any] = {"num_classes": len(spec.label_names), "in_chans": spec.channels}
    known: Any = timm.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is not None and known.fixed_input_size:
        options["img_size"] = spec.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            net: Any = timm.create_model(called, pretrained=bool(tag), **options).eval()
            with torch.no_grad():
                net(torch.zeros(1, spec.channels, *spec.size))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise StructureError(
                f"timm cannot make {called} for images of {spec.channels}x{spec.size[0]}x{spec.size[1]} and "
                f"{len(spec.label_names)} classes: {error}. Choose a network that takes images of this size."
            ) from error
    if file:
        _load_file(net, Path(file).expanduser(), name)
    net.pretrained_cfg = _described(net, spec, own=bool(tag))
    return Subject(name=name, model=ImageClassifier(net).eval(), trained=bool(tag or file))


def _load_file(net: nn.Module, path: Path, name: str) -> None:
    from timm.models import load_checkpoint

    try:
        load_checkpoint(net, str(path), weights_only=True)
    except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} cannot be loaded into {name}: {error}. It should be a state dict of this network, with the "
            "classes and channels of the test set."
        ) from error


def _described(net: Any, spec: InputSpec, *, own: bool) -> dict[str, Any]:
    """Returns timm's description of a network for the images of `spec`; weights of timm's keep their statistics."""
    cfg = dict(net.pretrained_cfg)
    return {
        **cfg,
        "tag": spec.dataset,
        "input_size": [spec.channels, *spec.size],
        "mean": list(cfg["mean"] if own else spec.mean),
        "std": list(cfg["std"] if own else spec.std),
        "num_classes": len(spec.label_names),
        "label_names": list(spec.label_names),
    }


def _no_classifier(name: str) -> DataError:
    return DataError(
        f"{name} is no image classifier. The benchmark compares those: for language models use `deqzoo eval` and "
        "`python -m deqzoo.benchmark.generation`."
    )
