"""Networks side by side: what they know, what they cost, and how fast they are, in one interleaved run."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deqzoo.benchmark.board_speed import Effort, Speed, Speeds, at_point, measure_speeds
from deqzoo.benchmark.cost import executed_flops
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.points import Point, points_of
from deqzoo.benchmark.rounds import Spread
from deqzoo.benchmark.subjects import Subject
from deqzoo.data import ImageData
from deqzoo.errors import UnconvergedWarning
from deqzoo.nn import observe_equilibria


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network on the board. What was not measured is None.

    Attributes:
        name: as it was asked for.
        kind: "implicit" or "explicit".
        weights: "trained" or "random", which have no accuracy.
        num_parameters: of the network.
        flops_mean: operations that are executed for an image.
        flops_p95: 95th percentile.
        evals_mean: evaluations of f for each image, summed over its equilibria.
        evals_p95: 95th percentile.
        converged: share of images, from 0 to 1; None with fixed budgets.
        num_images: that accuracy is over.
        accuracy: in per cent.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end.
        calibration_error: from 0 to 1.
        latency: of one image.
        throughput: at each batch size.
        training: a step of the optimiser.
        curve: at other budgets of the solver.
    """

    name: str
    kind: str
    weights: str
    num_parameters: int
    flops_mean: float
    flops_p95: float
    evals_mean: float | None
    evals_p95: float | None
    converged: float | None
    num_images: int | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    calibration_error: float | None
    latency: Spread
    throughput: tuple[Speed, ...]
    training: Speed | None
    curve: tuple[Point, ...] = field(default=())


_KNOWN = ("converged", "num_images", "accuracy", "accuracy_low", "accuracy_high", "calibration_error")


def measure_board(
    subjects: Sequence[Subject],
    data: ImageData,
    effort: Effort,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> list[Entry]:
    """Returns an entry for each network. Times are taken in turns, round after round.

    Args:
        subjects: the networks, of different names; they are moved to `device`.
        data: the test set.
        effort: how much is measured.
        device: where to run.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        ValueError: if two networks have the same name, or a batch size is below 1.
        DataError: if the data cannot be read, or has other labels than trained weights.
        StructureError: if the images have another size or other channels.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names) or not names or min(effort.batch_sizes, default=0) < 1:
        raise ValueError(
            f"Got networks {names} and batch sizes {effort.batch_sizes}. There is at least one of each, every network "
            "once and every size at least 1: correct the list."
        )
    device = torch.device(device)
    raw = data.image_set("test").images
    images: dict[str, Tensor] = {}
    most = max(*effort.batch_sizes, effort.num_flops)
    shown = raw[: min(most, len(raw))].to(device)
    for subject in subjects:
        subject.model.to(device).eval()
        images[subject.name] = _enough(prepared(shown, input_spec(subject.net)), most)
    options: dict[str, Any] = {"device": device, "batch_size": max(effort.batch_sizes), "progress": progress}
    known = {s.name: evaluate(s.model, data, **options).as_dict() for s in subjects if s.trained}
    curves = {
        s.name: points_of(s, data, images[s.name][: effort.num_flops], **options)
        for s in subjects
        if s.trained and effort.curves and s.kind == "implicit"
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        counted = {s.name: _counted(s.model, images[s.name][: effort.num_flops]) for s in subjects}
        speeds = measure_speeds(subjects, images, curves, effort, device, progress)
        return [_entry(s, known.get(s.name), counted[s.name], curves.get(s.name, ()), speeds, effort) for s in subjects]


def _entry(
    subject: Subject,
    known: dict[str, Any] | None,
    counted: dict[str, Any],
    curve: Sequence[Point],
    speeds: Speeds,
    effort: Effort,
) -> Entry:
    name = subject.name
    values: dict[str, Any] = dict.fromkeys(_KNOWN) | counted
    if known is not None:  # evaluations over the whole test set, not only where operations are counted
        values |= {key: known[key] for key in (*_KNOWN, "evals_mean", "evals_p95")}
    return Entry(
        name=name,
        kind=subject.kind,
        weights=subject.weights,
        num_parameters=sum(p.numel() for p in subject.net.parameters()),
        latency=speeds.latency[name],
        throughput=tuple(speeds.throughput[name, size] for size in effort.batch_sizes),
        training=speeds.training.get(name),
        curve=tuple(point.timed(speeds.latency[at_point(name, i)].median) for i, point in enumerate(curve)),
        **values,
    )


@torch.no_grad()
def _counted(model: Any, images: Tensor) -> dict[str, Any]:
    with observe_equilibria(model.net) as seen:
        model(images)
    flops = executed_flops(model, images)
    evals = seen.num_steps.double() if seen.solutions else None
    return {
        "flops_mean": flops["mean"],
        "flops_p95": flops["p95"],
        "evals_mean": None if evals is None else float(evals.mean()),
        "evals_p95": None if evals is None else float(evals.quantile(0.95, interpolation="higher")),
    }


def _enough(images: Tensor, count: int) -> Tensor:
    """Returns `count` images, the given ones over and over."""
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
