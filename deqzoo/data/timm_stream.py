"""Data sets that are streamed from shards or from the Hub."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

from deqzoo.data.batches import NoBatches, without_validation
from deqzoo.data.image_data import ImageData, ImageOptions
from deqzoo.data.image_set import Images
from deqzoo.data.random_crop import RandomCrop
from deqzoo.data.stream_batches import Decoding, StreamedEvalBatches, StreamedTrainBatches
from deqzoo.data.timm_split import TimmSplit
from deqzoo.errors import DataError, listed
from deqzoo.models.input_spec import INPUT_SPECS


class TimmStream(ImageData):
    """Images that timm's readers stream: shards of a WebDataset ("wds"), data sets of the Hub ("hfids/<name>").

    Training takes them as timm deals them out, see `StreamedTrainBatches`; evaluation takes each exactly once on any
    number of devices. Neither needs random access, so that there is no `image_set`. Labels are numbers in the order of
    the classes of `like`.

    Args:
        root: folder or address of the shards; for hfids where downloads are kept, None for the usual place.
        reader: "wds", or "hfids/<name of the data set, or a folder of its files>".
        train: shards such as "imagenet1k-train-{0000..1023}.tar", or the name of a split. The number of samples may
            follow, as in "train|1281167"; else local shards are counted, by every process.
        val: likewise for validation and test; None for neither.
        like: a data set of `INPUT_SPECS`, for size, normalisation and classes.
        size: height and width in pixels, if other than its own.
        crop: what is cut out of training images; None for their centres.
        num_workers: processes that decode, at most one for each of this process's shards; 0 decodes in the training
            process, when a batch is wanted.
        shuffle: samples among which each worker draws the next one in training.
        **options: of `ImageData`. `drop_last` has no effect: training batches are full.

    Raises:
        DataError: if the package that the reader needs is missing, or there is no such data set to be like.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        reader: str = "wds",
        train: str = "train",
        val: str | None = "validation",
        like: str = "imagenet-1k",
        size: int | None = None,
        crop: RandomCrop | None = None,
        num_workers: int = 4,
        shuffle: int = 4096,
        **options: Unpack[ImageOptions],
    ) -> None:
        if like not in INPUT_SPECS:
            raise DataError(
                f"like = {like!r} is no data set whose images are specified. Use one of {listed(INPUT_SPECS, 12)}."
            )
        spec = INPUT_SPECS[like]
        super().__init__(spec if size is None else replace(spec, size=(size, size)), root or ".", **options)
        if self.val_size or num_workers < 0 or shuffle < 1:
            raise ValueError(
                f"val_size = {self.val_size}, num_workers = {num_workers}, shuffle = {shuffle}. Nothing can be split "
                "off a stream, of workers there are 0 or more, and it takes one sample at least to draw the next from: "
                "name a split with `val`, or correct the value."
            )
        colours = "L" if spec.channels == 1 else "RGB"
        where = None if root is None else str(root)
        self._train = TimmSplit(
            reader=reader, root=where, split=train, colours=colours, shuffle=shuffle, seed=self.seed
        )
        self._val = None if val is None else replace(self._train, split=val)
        self.crop = crop
        self.num_workers = num_workers

    def read(self, split: Literal["train", "test"]) -> Images:
        """Refuses: a stream is read in its order.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"The images of {self._train.reader} are streamed, and no single one can be had by its number. Train and "
            "evaluate with `deqzoo fit` and `deqzoo test`, or unpack them for deqzoo.data.StreamedImageFolder."
        )

    @property
    def _has_val(self) -> bool:
        return self._val is not None

    def setup(self, stage: str) -> None:
        """Counts what a stage needs, so that errors come before training and not after its first epoch."""
        if stage == "fit":
            _ = self._train.num_samples
        if self._val is not None:
            _ = self._val.num_samples

    def train_dataloader(self) -> StreamedTrainBatches:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns this process's batches of the training set."""
        return StreamedTrainBatches(
            self._train, self._decoding, batch_size=self.batch_size, same_epoch=self._overfits, **self._process()
        )

    def val_dataloader(self) -> StreamedEvalBatches | NoBatches:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns this process's batches of the validation set, none where there is no such set."""
        return without_validation() if self._val is None else self._streamed(self._val)

    def test_dataloader(self) -> StreamedEvalBatches:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the batches of the validation set.

        Raises:
            DataError: if there is no such set.
        """
        if self._val is None:
            raise DataError("val = None leaves nothing to test on. Name the split or the shards to test with.")
        return self._streamed(self._val)

    @cached_property
    def _decoding(self) -> Decoding:
        return Decoding(spec=self.spec, crop=self.crop, num_workers=self.num_workers)

    def _streamed(self, split: TimmSplit) -> StreamedEvalBatches:
        return StreamedEvalBatches(split, self._decoding, batch_size=self.eval_batch_size, **self._process())
