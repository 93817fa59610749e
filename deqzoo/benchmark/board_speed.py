"""How fast networks are: latency, throughput and training steps, in turns."""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from deqzoo.benchmark.points import Point, solving_as
from deqzoo.benchmark.rounds import Spread, Work, in_turns, peak_mb
from deqzoo.benchmark.subjects import Subject


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        batch_sizes: that throughput is measured at; the largest is also that of training.
        repeats: rounds that count, of throughput and training.
        latencies: rounds that count at batch 1: in each, an image that is not timed, and the next one, that is.
        warmups: rounds before them.
        num_flops: images whose operations are counted.
        train: whether training steps are measured.
        curves: whether trained implicit networks are measured at other budgets too.
    """

    batch_sizes: tuple[int, ...] = (128,)
    repeats: int = 15
    latencies: int = 50
    warmups: int = 3
    num_flops: int = 100
    train: bool = True
    curves: bool = True


QUICK = Effort(repeats=3, latencies=10, warmups=1, num_flops=10)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A network at one batch size.

    Attributes:
        batch_size: images at once.
        milliseconds: of a batch, or of a training step.
        images_per_second: from the median.
        peak_mb: most memory at once in MiB, beyond weights and inputs.
    """

    batch_size: int
    milliseconds: Spread
    images_per_second: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Of several networks.

    Attributes:
        latency: of one image right after another, by name, and by name and number of a point of the curve (`at_point`).
        throughput: by name and batch size.
        training: by name; of none if it was not measured.
    """

    latency: dict[str, Spread]
    throughput: dict[tuple[str, int], Speed]
    training: dict[str, Speed]


def measure_speeds(
    subjects: Sequence[Subject],
    images: Mapping[str, Tensor],
    curves: Mapping[str, Sequence[Point]],
    effort: Effort,
    device: torch.device,
    progress: bool,
) -> Speeds:
    """Returns the times and the memory of networks, which take turns.

    Args:
        subjects: the networks.
        images: (B, C, H, W) normalised, by name.
        curves: points that are timed too, by name.
        effort: how much is measured.
        device: where the networks are.
        progress: whether to show a bar.
    """
    alone = {s.name: _one_by_one(s.model, images[s.name]) for s in subjects}
    for s in subjects:
        for i, point in enumerate(curves.get(s.name, ())):
            alone[at_point(s.name, i)] = solving_as(s.net, point, _one_by_one(s.model, images[s.name]))
    # An image before the one that is timed: what others left in the caches would cost more than a small network itself.
    single = {name: Work(run=run, prepare=run) for name, run in alone.items()}
    steps = {s.name: TrainingStep(s.net, images[s.name][: max(effort.batch_sizes)]) for s in subjects if effort.train}
    rounds = effort.warmups + effort.repeats
    total = len(single) * (effort.warmups + effort.latencies) + rounds * (
        len(subjects) * len(effort.batch_sizes) + len(steps)
    )
    with tqdm(total=total, desc="timing", unit="run", disable=None if progress else True) as bar:
        turns = partial(in_turns, warmups=effort.warmups, device=device, bar=bar)
        with torch.no_grad():
            latency = turns(single, repeats=effort.latencies)
            throughput: dict[tuple[str, int], Speed] = {}
            for size in effort.batch_sizes:
                batches = {s.name: partial(s.model, images[s.name][:size]) for s in subjects}
                times = turns({name: Work(run=run) for name, run in batches.items()}, repeats=effort.repeats)
                for name, run in batches.items():
                    throughput[name, size] = _speed(size, times[name], run, device)
        times = turns({name: Work(run=step) for name, step in steps.items()}, repeats=effort.repeats)
        size = max(effort.batch_sizes)
        training = {name: _speed(size, times[name], step, device) for name, step in steps.items()}
    return Speeds(latency=latency, throughput=throughput, training=training)


def at_point(name: str, index: int) -> str:
    """Returns what the latency of a point of a curve is filed under."""
    return f"{name} {index}"


class TrainingStep:
    """A step of the optimiser on a copy of a network: of length zero, so that every step is the same work.

    Args:
        net: images -> logits.
        images: (B, C, H, W) of the batch.
    """

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        self.net: Any = copy.deepcopy(net).train()
        self.images = images
        self.labels = torch.arange(len(images), device=images.device) % self.net.num_classes
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.0)

    def __call__(self) -> None:
        """Takes the step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.images), self.labels).backward()
        self.optimizer.step()


def _speed(size: int, times: Spread, run: Callable[[], object], device: torch.device) -> Speed:
    return Speed(
        batch_size=size,
        milliseconds=times,
        images_per_second=1e3 * size / times.median,
        peak_mb=peak_mb(run, device),
    )


def _one_by_one(model: Any, images: Tensor) -> Callable[[], object]:
    turns = itertools.cycle(images.split(1))
    return lambda: model(next(turns))
