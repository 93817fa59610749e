"""Batches by index: no worker processes and no collation for images and texts that lie in memory.

Which samples are in a batch, and the key of what is drawn for them, depend on (seed, epoch, batch index, rank)
alone. A run that is resumed therefore sees what it would have seen.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from typing import ClassVar, Generic, Never, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from deqzoo.errors import DataError

Made = TypeVar("Made", covariant=True)


class Source(Protocol[Made]):
    """Samples in memory that batches are made of."""

    unit: ClassVar[str]
    """What one sample is called."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, key: int | None) -> Made:
        """Returns the samples at `indices`, (B,) int64.

        Args:
            indices: of the samples.
            key: seeds what is drawn for them in training; None in evaluation.
        """
        ...


@runtime_checkable
class Streaming(Protocol[Made]):
    """Samples that are better made in advance, such as images in files."""

    def stream(self, plan: Iterable[tuple[Tensor, int | None]]) -> Iterator[Made]:
        """Yields the batches of (indices, key)."""
        ...


def _made(source: Source[Made], plan: Iterable[tuple[Tensor, int | None]]) -> Iterator[Made]:
    if isinstance(source, Streaming):
        return source.stream(plan)
    return (source.batch(indices, key) for indices, key in plan)


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in [0, 2⁶³) for a purpose: equal parts give equal seeds, others independent ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Epochs:
    """Knows the epoch that is iterated next, and the place in it; both survive an interruption.

    Lightning calls `set_epoch` before an epoch, and saves and restores the position in it with checkpoints.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._position = 0
        self._resume_at: tuple[int, int] | None = None

    @property
    def sampler(self) -> Self:
        """Itself: Lightning announces the epoch to an object of this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration runs through."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Returns the position: the epoch and how many of its batches were given out."""
        return {"epoch": self.epoch, "batch": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues at a saved position if its epoch is iterated next; any other starts at its beginning."""
        self._resume_at = (state["epoch"], state["batch"])

    def _first(self) -> int:
        """Returns the batch to start the epoch with; once only."""
        resume_at, self._resume_at = self._resume_at, None
        return resume_at[1] if resume_at is not None and resume_at[0] == self.epoch else 0


class TrainBatches(Epochs, Generic[Made]):
    """One rank's shuffled batches of an epoch; every epoch has another order.

    All ranks get the same number of batches of the same sizes. Together they hold the samples that one process
    with `world_size` times the batch size would get, but for fewer than `world_size` samples that are
    left out of an epoch when the number of samples is no multiple of it.

    Args:
        data: what to train on.
        batch_size: samples per batch and rank.
        seed: of the order and of what is drawn for each batch.
        drop_last: leave out an incomplete last batch.
        shuffle: False keeps the order of the data set.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are too few samples for one batch.
    """

    def __init__(
        self,
        data: Source[Made],
        *,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        if len(self) == 0:
            raise DataError(
                f"{len(data)} training {data.unit}s for {world_size} process(es) with batches of "
                f"{batch_size}{' and drop_last' if drop_last else ''} make no batch at all. Every process "
                "needs at least one per epoch: lower batch_size, or keep incomplete batches with "
                "drop_last=False."
            )

    def __len__(self) -> int:
        share = len(self.data) // self.world_size
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def __iter__(self) -> Iterator[Made]:
        # A generator: nothing here runs before the first batch is wanted, and by then the epoch is known.
        first, epoch = self._first(), self.epoch
        order = self._order(epoch)
        plan = (
            (
                order[index * self.batch_size : (index + 1) * self.batch_size],
                derive_seed("augment", self.seed, epoch, index, self.rank),
            )
            for index in range(first, len(self))
        )
        for index, batch in enumerate(_made(self.data, plan), first):
            self._position = index + 1
            yield batch

    def _order(self, epoch: int) -> Tensor:
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed("shuffle", self.seed, epoch))
            order = torch.randperm(len(self.data), generator=generator)
        else:
            order = torch.arange(len(self.data))
        even = len(order) - len(order) % self.world_size
        return order[self.rank : even : self.world_size]


class EvalBatches(Generic[Made]):
    """One rank's batches of an evaluation: over all ranks every sample comes exactly once, in order.

    Batches are as even as possible and at most `batch_size` large; every rank gets the same number of them,
    so that nobody waits for a rank that has finished.

    Args:
        data: the samples.
        batch_size: most samples per batch and rank.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are fewer samples than processes need.
    """

    def __init__(self, data: Source[Made], *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.data = data
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        if len(data) < world_size * len(self):
            raise DataError(
                f"{len(data)} {data.unit}s to evaluate on {world_size} processes with {len(self)} batch(es) "
                "each. No batch may be empty: use fewer processes or larger batches."
            )

    def __len__(self) -> int:
        return -(-len(self.data) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Made]:
        indices = torch.arange(self.rank, len(self.data), self.world_size)
        yield from _made(self.data, ((chosen, None) for chosen in indices.tensor_split(len(self))))


class NoBatches:
    """The batches of a validation set that does not exist."""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Never]:
        return iter(())


def without_validation() -> NoBatches:
    """Returns no batches: to have no validation set is no mistake, but Lightning warns of every empty loader."""
    warnings.filterwarnings("ignore", "Total length of `NoBatches` across ranks is zero", UserWarning)
    return NoBatches()
