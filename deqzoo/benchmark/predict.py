"""Predictions for single images, each with what its equilibrium cost and how it ended."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.data import EmbeddedSample, open_image
from deqzoo.errors import UnconvergedWarning
from deqzoo.nn import observe_equilibria
from deqzoo.solution import Status

_AT_ONCE = 64  # files; there may be more of them than memory holds


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        labels: names of the likeliest classes, likeliest first; none where the logits are not finite.
        probabilities: of these, in the same order.
        evals: evaluations of f, summed over equilibria; None for models without any.
        residual: the worst relative residual, likewise.
        status: how the worst solve ended, likewise.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    evals: int | None
    residual: float | None
    status: Status | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the prediction as plain values of JSON."""
        finite = self.residual is not None and math.isfinite(self.residual)
        return {
            "labels": list(self.labels),
            "probabilities": list(self.probabilities),
            "evals": self.evals,
            "residual": self.residual if finite else None,
            "status": None if self.status is None else self.status.name.lower(),
        }


def predict_files(model: nn.Module, paths: Sequence[Path], *, top_k: int = 5) -> list[tuple[str, Prediction]]:
    """Returns (path, prediction) for each image file, whatever its size and colours.

    Raises:
        DataError: naming the first file that is missing or no image.
    """
    net: Any = model
    found: list[tuple[str, Prediction]] = []
    for start in range(0, len(paths), _AT_ONCE):
        part = paths[start : start + _AT_ONCE]
        images = torch.stack([net.transform(open_image(path)) for path in part])
        found += zip(map(str, part), predict(model, images.to(_device(model)), top_k=top_k), strict=True)
    return found


def predict_sample(model: nn.Module, count: int, *, top_k: int = 5) -> list[tuple[str, Prediction]]:
    """Returns (what it is, prediction) for the first images of the embedded sample of the model's data set."""
    spec = input_spec(model.net)
    images = EmbeddedSample(spec.dataset).image_set("test")
    images = images.select(torch.arange(min(count, len(images))))
    inputs = prepared(images.images.to(_device(model)), spec)
    names = [f"image {i} (a {spec.label_names[label]})" for i, label in enumerate(images.labels.tolist())]
    return list(zip(names, predict(model, inputs, top_k=top_k), strict=True))


def predict(model: nn.Module, images: Tensor, *, top_k: int = 5) -> list[Prediction]:
    """Returns a prediction for each image. One that fails does not touch the others.

    Args:
        model: with `.net`, as `deqzoo.load` returns it.
        images: (B, C, H, W) normalised, as `model.transform` gives them.
        top_k: classes to name.

    Raises:
        StructureError: if the images have another size or other channels than the model's.
    """
    net: Any = model.net
    names = input_spec(net).label_names
    with torch.no_grad(), warnings.catch_warnings(), observe_equilibria(net) as seen:
        warnings.simplefilter("ignore", UnconvergedWarning)  # each prediction carries its status
        logits: Tensor = model(images)
    probabilities, classes = logits.double().softmax(1).topk(min(top_k, logits.shape[1]))
    solved = bool(seen.solutions)
    evals = seen.num_steps.tolist() if solved else []
    residuals = seen.residual.tolist() if solved else []
    statuses = seen.status.tolist() if solved else []
    return [
        Prediction(
            labels=_names(names, row) if finite else (),
            probabilities=tuple(shares) if finite else (),
            evals=evals[i] if solved else None,
            residual=residuals[i] if solved else None,
            status=Status(statuses[i]) if solved else None,
        )
        for i, (row, shares, finite) in enumerate(
            zip(classes.tolist(), probabilities.tolist(), logits.isfinite().all(1).tolist(), strict=True)
        )
    ]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _names(names: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[k] for k in classes)
