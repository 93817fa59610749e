"""Batches of images by index: no worker processes and no collation, since the images lie in memory.

Which images are in a batch, and the key of its augmentation, depend on (seed, epoch, batch index, rank)
alone. A run that is resumed therefore sees what it would have seen.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from deqzoo.data.image_set import ImageSet
from deqzoo.errors import DataError


class Batch(NamedTuple):
    """Raw images on their way to the device.

    Attributes:
        images: (B, C, H, W) uint8.
        labels: (B,) int64.
        key: seeds the augmentation; None means that the batch is not augmented.
    """

    images: Tensor
    labels: Tensor
    key: int | None


def derive_seed(*parts: int | str) -> int:
    """Returns a seed in [0, 2⁶³) for a purpose: equal parts give equal seeds, others independent ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class TrainBatches:
    """One rank's shuffled batches of an epoch; every epoch has another order.

    All ranks get the same number of batches of the same sizes. Together they hold the images that one process
    with `world_size` times the batch size would get, but for fewer than `world_size` images that are
    left out of an epoch when the number of images is no multiple of it.

    Lightning calls `set_epoch` before an epoch, and saves and restores the position in it with checkpoints.

    Args:
        data: the training images.
        batch_size: images per batch and rank.
        seed: of the order and of the augmentation.
        drop_last: leave out an incomplete last batch.
        shuffle: False keeps the order of the data set.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are too few images for one batch.
    """

    def __init__(
        self,
        data: ImageSet,
        *,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._position = 0
        self._resume_at: tuple[int, int] | None = None
        if len(self) == 0:
            raise DataError(
                f"{len(data)} training images for {world_size} process(es) with batches of "
                f"{batch_size}{' and drop_last' if drop_last else ''} make no batch at all. Every process "
                "needs at least one per epoch: lower batch_size, or keep incomplete batches with "
                "drop_last=False."
            )

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

    def __len__(self) -> int:
        share = len(self.data) // self.world_size
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing here runs before the first batch is wanted, and by then the epoch is known.
        resume_at, self._resume_at = self._resume_at, None
        epoch = self.epoch
        first = resume_at[1] if resume_at is not None and resume_at[0] == epoch else 0
        order = self._order(epoch)
        for index in range(first, len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            key = derive_seed("augment", self.seed, epoch, index, self.rank)
            self._position = index + 1
            yield Batch(self.data.images[chosen], self.data.labels[chosen], key)

    def _order(self, epoch: int) -> Tensor:
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed("shuffle", self.seed, epoch))
            order = torch.randperm(len(self.data), generator=generator)
        else:
            order = torch.arange(len(self.data))
        even = len(order) - len(order) % self.world_size
        return order[self.rank : even : self.world_size]


class EvalBatches:
    """One rank's batches of an evaluation: over all ranks every image comes exactly once, in order.

    Batches are as even as possible and at most `batch_size` large; every rank gets the same number of them,
    so that nobody waits for a rank that has finished.

    Args:
        data: the images.
        batch_size: most images per batch and rank.
        rank: of this process.
        world_size: number of processes.

    Raises:
        DataError: if there are fewer images than processes need.
    """

    def __init__(self, data: ImageSet, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.data = data
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        if len(data) < world_size * len(self):
            raise DataError(
                f"{len(data)} images to evaluate on {world_size} processes with {len(self)} batch(es) "
                "each. No batch may be empty: use fewer processes or larger batches."
            )

    def __len__(self) -> int:
        return -(-len(self.data) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        indices = torch.arange(self.rank, len(self.data), self.world_size)
        for chosen in indices.tensor_split(len(self)):
            yield Batch(self.data.images[chosen], self.data.labels[chosen], None)


class NoBatches:
    """The batches of a validation set that does not exist."""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(())
