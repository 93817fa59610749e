"""The data module of language models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from deqzoo.data.batches import EvalBatches, NoBatches, TrainBatches, without_validation
from deqzoo.data.module import DataModule
from deqzoo.data.text_files import Part, cut_text, part_files, read_all, read_text
from deqzoo.data.text_set import EveryToken, RandomWindows, Streams, TextBatch, TextSet
from deqzoo.errors import DataError
from deqzoo.models.bpe import BPEVocabulary
from deqzoo.models.vocabulary import CharVocabulary, Vocabulary, WordVocabulary

LEVELS = ("char", "word", "bpe")


class TextOptions(TypedDict, total=False):
    """The keywords that every data module of texts takes."""

    context: int
    batch_size: int
    eval_batch_size: int
    stream: bool
    seed: int
    vocabulary: Vocabulary | None


class TextData(DataModule):
    """Texts as numbers of tokens; batches reach the task as `TextBatch`.

    A file, or several that are read one after the other, is cut: the last `val_share` of its characters are for
    validation and for the test, which are then the same. A folder has a file for each part, with train, valid (or
    val) and test in their names. Training reads windows at random places, and in every epoch about every token once;
    evaluation scores every token exactly once, without overlap. With `stream`, both read the text in rows from one
    end to the other, for networks that remember.

    The vocabulary is made of the training text: its words, or its pieces; but of the whole text's characters.

    Args:
        path: of a file, of files, or of a folder.
        level: of the vocabulary to make: "char", "word" or "bpe".
        context: tokens of a window.
        batch_size: windows, or rows, per step and process.
        eval_batch_size: likewise in validation and test.
        val_share: of a text that does not come in parts.
        vocab_size: most tokens of a vocabulary of words or pieces.
        stream: whether batches go on where those before them ended.
        seed: of the windows.
        vocabulary: to read with, instead of making one: that of a model which is trained further.

    Attributes:
        title: what the text is called.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        level: str = "char",
        context: int = 256,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        val_share: float = 0.1,
        vocab_size: int | None = None,
        stream: bool = False,
        seed: int = 0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        if min(context, batch_size, eval_batch_size) < 1 or not 0 <= val_share < 1:
            raise ValueError(
                f"context = {context}, batch_size = {batch_size}, eval_batch_size = {eval_batch_size}, val_share = "
                f"{val_share}. The first three are 1 or more, the last is a share in [0, 1): correct the value."
            )
        if level not in LEVELS or (level == "bpe" and vocab_size is None and vocabulary is None):
            raise ValueError(
                f"level = {level!r}, vocab_size = {vocab_size}. A token is one of {', '.join(LEVELS)}, and for bpe "
                "somebody has to say how many there are: set both."
            )
        self.paths = [Path(p).expanduser() for p in ([path] if isinstance(path, str | Path) else path)]
        self.title = self.paths[0].name
        self.level = level if vocabulary is None else vocabulary.level
        self.context = context
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_share = val_share
        self.vocab_size = vocab_size
        self.stream = stream
        self.seed = seed
        self._vocabulary = vocabulary
        self._texts: dict[Part, str] = {}
        self._sets: dict[Part, TextSet] = {}

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens, made of the text if none were given."""
        if self._vocabulary is None:
            if self.level == "char":
                self._vocabulary = CharVocabulary.of([self.text("all")])
            elif self.level == "word":
                self._vocabulary = WordVocabulary.of([self.text("train")], max_tokens=self.vocab_size)
            else:
                assert self.vocab_size is not None
                self._vocabulary = BPEVocabulary.of([self.text("train")], max_tokens=self.vocab_size)
        return self._vocabulary

    def text(self, part: Part) -> str:
        """Returns a part of the text; it is read once and kept.

        Raises:
            DataError: if it is missing, empty or not a text.
        """
        if part not in self._texts:
            self._texts.update(self.read())
        if part not in self._texts:
            raise DataError(f"{self.title} has no part {part!r}. It has {', '.join(self._texts)}: choose one of these.")
        if not self._texts[part]:
            raise DataError(f"The part {part!r} of {self.title} is empty. Parts are shares of a text: set val_share.")
        return self._texts[part]

    def read(self) -> dict[Part, str]:
        """Returns the parts from the disk.

        Raises:
            DataError: if one is missing, empty or not a text.
        """
        if len(self.paths) == 1 and self.paths[0].is_dir():
            found: dict[Part, str] = {part: read_text(file) for part, file in part_files(self.paths[0]).items()}
            return {**found, "all": "".join(found.values())}
        whole = read_all(self.paths)
        first, last = cut_text(whole, self.val_share, at_lines=self.level != "char")
        return {"train": first, "val": last, "test": last, "all": whole}

    def text_set(self, part: Part) -> TextSet:
        """Returns the tokens of a part; they are made once and kept.

        Raises:
            DataError: if the part is missing, unreadable or too short.
            VocabularyError: for what no token stands for.
        """
        if part not in self._sets:
            self._sets[part] = TextSet.of(self.text(part), self.vocabulary, origin=f"The part {part!r} of {self.title}")
        return self._sets[part]

    # What Lightning calls.

    def setup(self, stage: str) -> None:
        """Reads what a stage needs, so that errors come before training and not after its first epoch."""
        if stage == "fit":
            self.text_set("train")
        if stage in ("fit", "validate") and self._has_val:
            self.text_set("val")
        if stage == "test":
            self.text_set("test")

    def train_dataloader(self) -> TrainBatches[TextBatch]:
        """Returns this process's batches of the training text."""
        if self.stream:
            # One segment after the other: the rows are what a batch has.
            rows = self.batch_size * self._world_size
            return TrainBatches(self._streams("train", rows), batch_size=1, shuffle=False)
        windows = RandomWindows(self.text_set("train"), self.context, fixed=self._overfits)
        return TrainBatches(
            windows, batch_size=self.batch_size, seed=self.seed, shuffle=not self._overfits, **self._process()
        )

    def val_dataloader(self) -> EvalBatches[TextBatch] | NoBatches:
        """Returns this process's batches of the validation text, none where there is no such text."""
        return self._eval_batches("val") if self._has_val else without_validation()

    def test_dataloader(self) -> EvalBatches[TextBatch]:
        """Returns this process's batches of the test text."""
        return self._eval_batches("test")

    def _eval_batches(self, part: Part) -> EvalBatches[TextBatch]:
        if self.stream:
            # As many as one process reads, which share them: each row begins without what is before it in the text.
            return EvalBatches(self._streams(part, max(self.eval_batch_size, self._world_size)), batch_size=1)
        windows = EveryToken(self.text_set(part), self.context)
        return EvalBatches(windows, batch_size=self.eval_batch_size, **self._process())

    def _streams(self, part: Part, rows: int) -> Streams:
        own = slice(self._process().get("rank", 0), None, self._world_size)
        return Streams(self.text_set(part), self.context, num_rows=rows, rows=own)

    @property
    def _has_val(self) -> bool:
        self.text("all")
        return bool(self._texts.get("val"))

    @property
    def _world_size(self) -> int:
        return self._process().get("world_size", 1)
