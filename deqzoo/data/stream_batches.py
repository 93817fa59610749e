"""Batches of what can only be read in its order."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from deqzoo.data.batches import Epochs, derive_seed
from deqzoo.data.image_set import Batch
from deqzoo.data.pictures import to_pixels
from deqzoo.data.random_crop import RandomCrop
from deqzoo.data.timm_split import Piece, TimmSplit
from deqzoo.errors import DataError
from deqzoo.models.input_spec import InputSpec

_CHUNK = 16  # images that a worker hands on at once in evaluation


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What is done to the pictures of a stream, and by how many processes.

    Attributes:
        spec: channels, size and classes.
        crop: cut out of training images; None for their centres.
        num_workers: most processes; 0 decodes when a batch is wanted.
    """

    spec: InputSpec
    crop: RandomCrop | None
    num_workers: int


class StreamedTrainBatches(Epochs):
    """One rank's batches of an epoch, full ones, as timm deals them out.

    Every worker of every rank reads shards of its own, over and over, until it has its part of the number of samples,
    rounded up to whole batches. An epoch therefore has samples twice, or lacks some, where shards are unequal. Its
    order depends on (seed, epoch, rank, number of workers and ranks). After an interruption within an epoch, what
    came before is read once more and thrown away.

    Raises:
        DataError: if there are fewer shards than processes.
    """

    def __init__(
        self,
        split: TimmSplit,
        decoding: Decoding,
        *,
        batch_size: int,
        same_epoch: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.split = split
        self.decoding = decoding
        self.batch_size = batch_size
        self.same_epoch = same_epoch
        self.rank = rank
        # A stream of the Hub in parts that cannot be shared evenly is read by all, who skip what is the others'.
        shared = split.reader.startswith("wds") or split.num_streams % world_size == 0
        streams = split.num_streams // world_size if shared else split.num_streams
        if streams == 0:
            raise DataError(
                f"{split.num_streams} shard(s) of {split.split!r} to train {world_size} processes on. Each of them "
                "needs one at least: use fewer processes, or divide the data into more shards."
            )
        self.num_workers = min(decoding.num_workers, streams)
        self._reader = split.training_reader(batch_size)
        self._reader.dist_rank, self._reader.dist_num_replicas = rank, world_size
        self._reader.set_loader_cfg(num_workers=self.num_workers)

    def __len__(self) -> int:
        return len(self._reader) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        first, epoch = self._first(), 0 if self.same_epoch else self.epoch
        seed = derive_seed("stream", self.split.seed, epoch, self.rank)
        reader = copy.copy(self._reader)
        reader.worker_seed = seed
        reader.set_epoch(epoch)
        index = -1
        samples = _Decoded(partial(_all_of, reader), self.decoding, self.batch_size, seed)
        for index, batch in enumerate(_loaded(samples, self.num_workers)):
            if index >= first:
                self._position = index + 1
                yield batch._replace(key=derive_seed("augment", self.split.seed, epoch, index, self.rank))
        if index + 1 < len(self):
            raise DataError(
                f"{self.split.split!r} gave {index + 1} of {len(self)} batches. Shards that are missing or damaged are "
                "passed over: look at what was logged, and fetch them again."
            )


class StreamedEvalBatches:
    """One rank's batches of an evaluation: over all ranks every sample comes exactly once.

    Batches are as even as possible and at most `batch_size` large; every rank gets the same number of them, so that
    nobody waits for a rank that has finished.

    Raises:
        DataError: if there are fewer samples than processes need and, when iterated, if there is another number of
            samples than there should be.
    """

    def __init__(
        self, split: TimmSplit, decoding: Decoding, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        total = split.num_samples
        self._length = -(-total // (batch_size * world_size))
        if total < world_size * self._length:
            raise DataError(
                f"{total} samples of {split.split!r} to evaluate on {world_size} processes with {self._length} "
                "batch(es) each. No batch may be empty: use fewer processes or larger batches."
            )
        self._pieces = split.pieces(rank, world_size, decoding.num_workers)
        self.decoding = replace(decoding, crop=None, num_workers=min(decoding.num_workers, len(self._pieces)))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        chunks = _loaded(_Decoded(self._dealt, self.decoding, _CHUNK, 0), self.decoding.num_workers)
        samples = ((image, label) for chunk in chunks for image, label in zip(chunk.images, chunk.labels, strict=True))
        total = sum(piece.count for piece in self._pieces)
        for part in torch.arange(total).tensor_split(len(self)):
            images, labels = zip(*islice(samples, len(part)), strict=True)
            yield Batch(torch.stack(images), torch.stack(labels), None)
        # The last piece may have more than it should, which its end will tell.
        assert next(samples, None) is None

    def _dealt(self, worker: int, workers: int) -> Iterator[tuple[Any, Any]]:
        """Yields the samples of the pieces that are a worker's."""
        for piece in self._pieces[worker::workers]:
            yield from _counted(piece)


def _all_of(reader: Any, worker: int, workers: int) -> Iterable[tuple[Any, Any]]:
    """Returns what a reader yields that knows by itself which worker it is in."""
    return reader


def _counted(piece: Piece) -> Iterator[tuple[Any, Any]]:
    """Yields the samples of a piece.

    Raises:
        DataError: if there are fewer or more of them than there should be.
    """
    got = 0
    for sample in islice(copy.copy(piece.reader), piece.start, piece.stop, piece.step):
        got += 1
        if got <= piece.count:
            yield sample
    if got != piece.count:
        raise DataError(
            f"{piece.name} gave this process {got} samples instead of {piece.count}. Evaluation counts each once: "
            "fetch it again if it is damaged (what could not be read was logged), or correct the number of samples."
        )


Source: TypeAlias = Callable[[int, int], Iterable[tuple[Any, Any]]]
"""What yields (picture, label) for a worker by its number, of how many."""


class _Decoded(IterableDataset[Batch]):
    """What streams yield, as batches of one size and a rest.

    Args:
        source: of pictures.
        decoding: of their pictures.
        batch_size: samples per batch.
        seed: of what is drawn.
    """

    def __init__(self, source: Source, decoding: Decoding, batch_size: int, seed: int) -> None:
        self.source = source
        self.decoding = decoding
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[Batch]:
        worker, workers = _worker()
        seed = derive_seed("crop", self.seed, worker)
        samples = enumerate(self.source(worker, workers))
        while chosen := list(islice(samples, self.batch_size)):
            images = [self._pixels(image, seed + place) for place, (image, _) in chosen]
            labels = [self._label(label) for _, (_, label) in chosen]
            yield Batch(torch.stack(images), torch.tensor(labels), None)

    def _pixels(self, image: Any, seed: int) -> Tensor:
        spec, crop = self.decoding.spec, self.decoding.crop
        width, height = image.size
        box = None if crop is None else crop.box(width, height, seed)
        return to_pixels(image, channels=spec.channels, size=spec.size, box=box)

    def _label(self, label: int) -> int:
        classes = len(self.decoding.spec.label_names)
        if not 0 <= label < classes:
            raise DataError(
                f"A sample has the label {label}, and {self.decoding.spec.dataset} has {classes} classes, from 0. "
                "The labels of a stream are numbers in its order: choose `like` to fit the data."
            )
        return label


def _worker() -> tuple[int, int]:
    """Returns which of how many workers this process is."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _loaded(dataset: _Decoded, num_workers: int) -> Iterator[Batch]:
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            # Its own: random numbers of a run must not depend on workers, nor they on the run.
            generator=torch.Generator().manual_seed(dataset.seed),
        )
    )
