"""The base of all image data modules."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import Tensor

from deqzoo.data.augment import Augmentation
from deqzoo.data.batches import EvalBatches, NoBatches, TrainBatches, without_validation
from deqzoo.data.image_set import Batch, Images, normalise, split_by_class, to_float
from deqzoo.data.module import DataModule
from deqzoo.errors import DataError
from deqzoo.models.input_spec import InputSpec

Split = Literal["train", "val", "test"]


class ImageOptions(TypedDict, total=False):
    """The keywords of `ImageData`, which every data module takes."""

    batch_size: int
    eval_batch_size: int
    augment: Sequence[Augmentation]
    val_size: int
    seed: int
    drop_last: bool


class ImageData(DataModule, ABC):
    """Images that are decoded once into memory, then normalised and augmented on the training device.

    Batches reach the task as (images, labels): normalised float images (B, C, H, W) and int64 labels (B,).
    Without a trainer, `image_set("test")` gives the raw images and `spec` says how to normalise them.

    A subclass reads one split in `read`; `spec` is set by its constructor.

    Args:
        spec: size, normalisation and labels of the images.
        root: folder of the data.
        batch_size: training images per step and process.
        eval_batch_size: most images per step and process in validation and test.
        augment: applied to training batches in this order.
        val_size: images split off the training set for validation, with the same share of every class;
            0 for none.
        seed: of the split, the order of training images and the augmentation.
        drop_last: leave out an incomplete last batch in training. Evaluation never leaves anything out.

    Raises:
        ValueError: for a batch size below 1 or a negative `val_size`.
    """

    def __init__(
        self,
        spec: InputSpec,
        root: str | Path,
        *,
        batch_size: int = 128,
        eval_batch_size: int = 512,
        augment: Sequence[Augmentation] = (),
        val_size: int = 0,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1 or val_size < 0:
            raise ValueError(
                f"batch_size = {batch_size}, eval_batch_size = {eval_batch_size}, val_size = {val_size}. A "
                "batch has at least one image and a split no negative number of them: correct the value."
            )
        self.spec = spec
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.augment = tuple(augment)
        self.val_size = val_size
        self.seed = seed
        self.drop_last = drop_last
        self._sets: dict[Split, Images] = {}

    @abstractmethod
    def read(self, split: Literal["train", "test"]) -> Images:
        """Returns a split from the disk, before anything is split off for validation.

        Raises:
            DataError: if it is missing or unreadable.
        """

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.spec.label_names)

    def image_set(self, split: Split) -> Images:
        """Returns the raw images of a split; they are read once and kept.

        Raises:
            DataError: if the split is missing or unreadable, or "val" is asked for with `val_size=0`.
        """
        if split not in self._sets:
            self._sets.update(self._load(split))
        return self._sets[split]

    def _load(self, split: Split) -> dict[Split, Images]:
        if split == "test":
            return {"test": self.read("test")}
        if split == "val" and self.val_size == 0:
            raise DataError(
                f"{type(self).__name__} has no validation images. They are split off the training set: set val_size."
            )
        images = self.read("train")
        if self.val_size == 0:
            return {"train": images}
        if self.val_size >= len(images):
            raise DataError(
                f"val_size = {self.val_size} of {len(images)} training images. Some must be left to train "
                "on: lower val_size."
            )
        train, val = split_by_class(images.labels, self.val_size, self.seed)
        return {"train": images.select(train), "val": images.select(val)}

    @property
    def _has_val(self) -> bool:
        return self.val_size > 0

    # What Lightning calls.

    def setup(self, stage: str) -> None:
        """Reads what a stage needs, so that errors come before training and not after its first epoch."""
        if stage == "fit":
            self.image_set("train")
        if self._has_val and stage in ("fit", "validate"):
            self.image_set("val")
        if stage in ("test", "predict"):
            self.image_set("test")

    def train_dataloader(self) -> TrainBatches:
        """Returns this process's batches of the training set."""
        return TrainBatches(
            self.image_set("train"),
            batch_size=self.batch_size,
            seed=self.seed,
            drop_last=self.drop_last,
            shuffle=not self._overfits,
            **self._process(),
        )

    def val_dataloader(self) -> EvalBatches | NoBatches:
        """Returns this process's batches of the validation set, none where there is no such set."""
        return self._eval_batches("val") if self._has_val else without_validation()

    def test_dataloader(self) -> EvalBatches:
        """Returns this process's batches of the test set."""
        return self._eval_batches("test")

    def predict_dataloader(self) -> EvalBatches:
        """Returns this process's batches of the test set."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Returns (images, labels): images augmented if the batch is one to train on, and normalised."""
        images = to_float(batch.images)
        if batch.key is not None:
            generator = torch.Generator(images.device).manual_seed(batch.key)
            for augmentation in self.augment:
                images = augmentation(images, generator)
        images = normalise(images, self.spec.mean, self.spec.std)
        if self.trainer is not None:  # whose own conversion came before the transfer and met integers
            images = self.trainer.precision_plugin.convert_input(images)
        return images, batch.labels

    def _eval_batches(self, split: Split) -> EvalBatches:
        return EvalBatches(self.image_set(split), batch_size=self.eval_batch_size, **self._process())
