"""The curve of an implicit network: the same weights at other budgets and tolerances of their solvers."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from deqzoo.benchmark.cost import executed_flops
from deqzoo.benchmark.subjects import Subject
from deqzoo.benchmark.sweep import sweep
from deqzoo.data import ImageData
from deqzoo.errors import UnconvergedWarning
from deqzoo.nn import runtime_kept, set_runtime


@dataclass(frozen=True, kw_only=True)
class Point:
    """A network at one budget.

    Attributes:
        max_steps: of each equilibrium.
        rtol: of each equilibrium.
        accuracy: in per cent.
        evals_mean: evaluations of f for an image.
        flops_mean: operations that are executed for an image.
        latency_ms: of one image, the median; None until it is timed.
    """

    max_steps: int
    rtol: float
    accuracy: float
    evals_mean: float
    flops_mean: float
    latency_ms: float | None = None

    def timed(self, latency_ms: float) -> "Point":
        """Returns this point with its latency."""
        return dataclasses.replace(self, latency_ms=latency_ms)


def points_of(subject: Subject, data: ImageData, images: Tensor, **options: Any) -> list[Point]:
    """Returns the points of an implicit network, least compute first.

    Args:
        subject: the network.
        data: that accuracies are on.
        images: (B, C, H, W) normalised, whose operations are counted.
        **options: of `evaluate`.
    """
    points = []
    for found in sweep(subject.model, data, **options):
        point = Point(
            max_steps=found["max_steps"],
            rtol=found["rtol"],
            accuracy=found["accuracy"],
            evals_mean=found["evals_mean"],
            flops_mean=0.0,
        )
        with at(subject.net, point), warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)
            flops = executed_flops(subject.model, images)["mean"]
        points.append(dataclasses.replace(point, flops_mean=flops))
    return sorted(points, key=lambda point: point.evals_mean)


@contextmanager
def at(net: nn.Module, point: Point) -> Iterator[None]:
    """A context in which a network has the budget of a point; its own solvers come back afterwards."""
    with runtime_kept(net):
        set_runtime(net, max_steps=point.max_steps, rtol=point.rtol)
        yield


def solving_as(net: nn.Module, point: Point, run: Callable[[], object]) -> Callable[[], object]:
    """Returns `run` at the budget of a point. To change the budget takes microseconds."""

    def at_point() -> None:
        with at(net, point):
            run()

    return at_point
