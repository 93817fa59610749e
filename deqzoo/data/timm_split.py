"""A split of a data set that timm's readers stream, and how processes share it."""

import copy
import os
import re
import tarfile
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from timm.data.readers.reader_factory import create_reader

from deqzoo.errors import DataError

PACKAGES = {"wds": "webdataset", "hfids": "datasets"}
"""The readers that are known, and the package that each needs."""

_IMAGES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some samples of a stream.

    Attributes:
        reader: of the stream.
        name: of it.
        start: first sample.
        stop: the one behind the last; None for the end of the stream.
        step: from one to the next.
        count: of them.
    """

    reader: Any
    name: str
    start: int
    stop: int | None
    step: int
    count: int


@dataclass(frozen=True, kw_only=True)
class TimmSplit:
    """A split of a data set that timm reads.

    Attributes:
        reader: "wds", or "hfids/<name>" for a data set of the Hub or a folder of its files.
        root: folder or address of the shards; for hfids where downloads are kept, None for the usual place.
        split: as timm's reader takes it: shards such as "train-{0000..1023}.tar" or the name of a split. The number of
            samples can follow, as in "train-{0000..1023}.tar|1281167".
        colours: "RGB" or "L".
        shuffle: samples among which the next one is drawn in training.
        seed: of the order in training.
    """

    reader: str
    root: str | None
    split: str
    colours: str
    shuffle: int
    seed: int

    def __post_init__(self) -> None:
        kind = self.reader.partition("/")[0]
        if kind not in PACKAGES:
            raise DataError(
                f"reader = {self.reader!r} streams nothing that is known here. Use 'wds' for the shards of a "
                "WebDataset or 'hfids/<name>' for a data set of the Hub."
            )
        try:
            import_module(PACKAGES[kind])
        except ImportError as error:
            raise DataError(
                f"The reader {kind!r} of timm needs the package {PACKAGES[kind]}, which cannot be imported ({error}). "
                f"Install it: `pip install deqzoo[stream]`."
            ) from error

    @cached_property
    def num_samples(self) -> int:
        """Samples of the split, by what `split` says, by the data set's own description, or counted.

        Raises:
            DataError: if there is none of them.
        """
        said = self._said or self._plain.num_samples or sum(self.lengths or ())
        if not said:
            raise DataError(
                f"It is not known how many samples {self.split!r} of {self.root or self.reader} has. Steps are planned "
                f"by it: put the number behind the split, as in {self.split + '|1281167'!r}."
            )
        return said

    @cached_property
    def lengths(self) -> tuple[int, ...] | None:
        """Samples of each shard; None where they are not known, as on the Hub."""
        if not self._shards:
            return None
        info = self._plain.split_info
        if len(info.shard_lengths) == len(self._shards):
            return tuple(info.shard_lengths)
        return tuple(map(_count, self._shards)) if self._are_local else None

    @cached_property
    def num_streams(self) -> int:
        """Parts that can be read beside each other."""
        if self._shards:
            return len(self._shards)
        return self._plain.builder.as_streaming_dataset(split=self._plain.split).num_shards

    def training_reader(self, batch_size: int) -> Any:
        """Returns timm's reader for training batches of that size."""
        return self._open(is_training=True, batch_size=batch_size, num_samples=self.num_samples)

    def pieces(self, rank: int, world_size: int, num_workers: int) -> list[Piece]:
        """Returns what one of several processes evaluates; over all of them every sample comes once.

        Where the lengths of shards are known, it is every process's part of their sequence. Other streams are read
        by all, each of whom keeps every so many-th sample.

        Args:
            rank: of the process.
            world_size: number of processes.
            num_workers: of its workers that there will be, each of which takes some of the pieces.

        Raises:
            DataError: if the shards have another number of samples than the split says.
        """
        if self.lengths is None:
            count = len(range(rank, self.num_samples, world_size))
            reader = self._on_its_own(self._plain)
            return [Piece(reader=reader, name=self.split, start=rank, stop=None, step=world_size, count=count)]
        total = sum(self.lengths)
        if total != self.num_samples:
            raise DataError(
                f"The shards of {self.split!r} hold {total} samples, not {self.num_samples}. Evaluation counts each "
                "once: correct the number behind the split, or fetch the shards again."
            )
        first, behind = rank * total // world_size, (rank + 1) * total // world_size
        found, begin = [], 0
        for shard, length in zip(self._shards, self.lengths, strict=True):
            start, stop = max(first - begin, 0), min(behind - begin, length)
            if start < stop:
                reader = self._on_its_own(self._plain)
                # As often as there are workers: timm gives each worker one of them.
                names = (shard,) * max(1, num_workers)
                reader.split_info = replace(reader.split_info, filenames=names)
                end = None if stop == length else stop
                found.append(Piece(reader=reader, name=shard, start=start, stop=end, step=1, count=stop - start))
            begin += length
        return found

    @staticmethod
    def _on_its_own(reader: Any) -> Any:
        """Returns a reader that knows of no other process: it would cut all streams to one length."""
        reader = copy.copy(reader)
        reader.dist_rank, reader.dist_num_replicas = 0, 1
        return reader

    @cached_property
    def _plain(self) -> Any:
        """The reader of all samples in their order."""
        return self._open(is_training=False)

    @property
    def _said(self) -> int | None:
        """The number of samples behind the split."""
        number = self.split.rpartition("|")[2] if "|" in self.split else ""
        return int(number) if number.isdecimal() else None

    @property
    def _shards(self) -> list[str]:
        if not self.reader.startswith("wds"):
            return []
        return [os.path.join(str(self.root), name) for name in self._plain.split_info.filenames]

    @property
    def _are_local(self) -> bool:
        return not re.match(r"\w\w+:", str(self.root))

    def _open(self, **options: Any) -> Any:
        kind, _, name = self.reader.partition("/")
        split = self.split
        if kind == "wds":
            options |= {"input_key": ";".join(_IMAGES), "sample_shuffle_size": self.shuffle}
            options["sample_initial_size"] = max(1, self.shuffle // 4)
        else:
            split = split.partition("|")[0]
            options |= {"shuffle_size": self.shuffle}
            options.setdefault("num_samples", self._said)
        try:
            return create_reader(
                f"{kind}/{name}",
                self.root,
                split,
                seed=self.seed,
                input_img_mode=self.colours,
                **options,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                f"timm could not open {self.split!r} of {self.reader} in {self.root}: {error} Correct the split or the "
                "root; the number of samples can follow the split, as in 'train-{0000..1023}.tar|1281167'."
            ) from error


def _count(shard: str) -> int:
    """Returns the number of samples in a file of them."""
    try:
        with tarfile.open(shard) as members:
            names = [Path(member.name) for member in members if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"The shard {shard} could not be read: {error}. Every shard of a split must be there, and complete: fetch "
            "it again, or correct the split."
        ) from error
    # The files of a sample have the name up to the first point in common.
    return len({str(n.parent / n.name.partition(".")[0]) for n in names if n.name.lower().endswith(_IMAGES)})
