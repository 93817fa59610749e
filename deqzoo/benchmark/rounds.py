"""Times of several contenders, taken in turns: what slows the machine down slows all of them down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tqdm import tqdm

from deqzoo.benchmark.machine import seconds_of
from deqzoo.benchmark.memory import peak_bytes
from deqzoo.benchmark.tally import percentile


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is timed.

    Attributes:
        run: the work.
        prepare: comes before it each time, and is not timed.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times of one contender in milliseconds.

    Attributes:
        median: of all.
        low: the first quartile.
        high: the third quartile.
        p95: 95th percentile.
        repeats: how many.
    """

    median: float
    low: float
    high: float
    p95: float
    repeats: int


def in_turns(
    works: Mapping[str, Work], *, repeats: int, warmups: int, device: torch.device, bar: tqdm | None = None
) -> dict[str, Spread]:
    """Returns the times of each work: all take one turn in every round, and the first rounds do not count.

    Args:
        works: by name.
        repeats: rounds that count.
        warmups: rounds before them.
        device: that is waited for.
        bar: moves by one for each turn.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warmups + repeats):
        for name, work in works.items():
            work.prepare()
            milliseconds = 1e3 * seconds_of(work.run, device)
            if turn >= warmups:
                taken[name].append(milliseconds)
            if bar is not None:
                bar.update()
    return {name: _spread(torch.tensor(times, dtype=torch.float64)) for name, times in taken.items()}


def peak_mb(compute: Callable[[], object], device: torch.device) -> float:
    """Returns the most memory, in MiB, that `compute` has at once beyond what was there before.

    On a GPU what its allocator gave out, elsewhere the storage of all tensors that were made.
    """
    if device.type != "cuda":
        return peak_bytes(compute) / 2**20
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    compute()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _spread(times: torch.Tensor) -> Spread:
    return Spread(
        median=float(times.quantile(0.5)),
        low=float(times.quantile(0.25)),
        high=float(times.quantile(0.75)),
        p95=percentile(times, 0.95),
        repeats=len(times),
    )
