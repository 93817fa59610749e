"""Predictions for single images, each with what its equilibrium cost and how it ended."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deqzoo.benchmark.inputs import input_spec
from deqzoo.benchmark.tally import worst_status
from deqzoo.errors import UnconvergedWarning
from deqzoo.nn import observe_equilibria
from deqzoo.solution import Status


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
    statuses = worst_status(seen).tolist() if solved else []
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


def _names(names: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[k] for k in classes)
