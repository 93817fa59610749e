"""A text in memory as numbers of tokens, and how it is cut into what a network reads at once."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deqzoo.errors import DataError
from deqzoo.models.vocabulary import Vocabulary


class TextBatch(NamedTuple):
    """Parts of a text.

    Attributes:
        tokens: (B, T) int64.
        targets: (B, T) int64, the token after each of these.
        scored: (B, T) bool, the targets that count; the others are there as context.
        goes_on: whether each row goes on where it ended in the batch before.
        chars_per_token: characters that a scored target stands for, in the mean over the text.
    """

    tokens: Tensor
    targets: Tensor
    scored: Tensor
    goes_on: bool
    chars_per_token: float


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """A text as numbers of tokens. All tokens but the first are targets: there is nothing that it could follow from.

    Attributes:
        tokens: (N,) int32.
        num_chars: characters of the targets, as the text writes them.
    """

    tokens: Tensor
    num_chars: int

    @classmethod
    def of(cls, text: str, vocabulary: Vocabulary, *, origin: str) -> "TextSet":
        """Returns `text`, which comes from `origin`, in the tokens of a vocabulary.

        Raises:
            DataError: if it has fewer than two tokens.
            VocabularyError: for what no token stands for.
        """
        # Words by line: a list of all words of a large text would take many times its memory.
        parts = text.splitlines(keepends=True) if vocabulary.level == "word" else [text]
        tokens = np.concatenate([np.empty(0, np.int32), *(np.array(vocabulary.encode(p), np.int32) for p in parts)])
        if len(tokens) < 2:
            raise DataError(
                f"{origin} has {len(tokens)} token(s) of level {vocabulary.level}. A text needs two at least, one to "
                "follow from the other: choose another file, or a larger share of it."
            )
        first = len(vocabulary.decode(tokens[:1].tolist()))
        return cls(tokens=torch.from_numpy(tokens), num_chars=max(len(text) - first, 1))

    @property
    def num_targets(self) -> int:
        """Number of tokens that have one before them."""
        return len(self.tokens) - 1

    @property
    def chars_per_token(self) -> float:
        """Characters per target, in the mean."""
        return self.num_chars / self.num_targets

    def cut(self, starts: Tensor, length: int, *, scored_from: Tensor, goes_on: bool = False) -> TextBatch:
        """Returns rows of the text.

        Args:
            starts: (B,) int64, where they begin.
            length: T of each.
            scored_from: (B,) int64, the first position in the text whose target counts.
            goes_on: as in `TextBatch`.
        """
        positions = starts[:, None] + torch.arange(length)
        rows = self.tokens[torch.cat((positions, positions[:, -1:] + 1), 1)].long()
        return TextBatch(rows[:, :-1], rows[:, 1:], positions >= scored_from[:, None], goes_on, self.chars_per_token)


class RandomWindows:
    """Windows of a text at random places, or at fixed ones, one in each of as many equal parts as windows fit into it.

    The parts lie at even distances and a window anywhere within its own, so that over an epoch about every token
    is read once, at another place in its window in every epoch.

    Args:
        text: to cut.
        length: tokens of a window, or of the text if that has fewer.
        fixed: whether every epoch sees the same windows.
    """

    unit: ClassVar[str] = "window"

    def __init__(self, text: TextSet, length: int, *, fixed: bool = False) -> None:
        self.text = text
        self.length = min(length, text.num_targets)
        self.fixed = fixed

    def __len__(self) -> int:
        return self.text.num_targets // self.length

    def batch(self, indices: Tensor, key: int | None) -> TextBatch:
        """Returns the windows of parts (B,), at places that `key` draws; at their starts without, or if fixed."""
        shift = torch.zeros(len(indices), dtype=torch.float64)
        if key is not None and not self.fixed:
            shift.uniform_(generator=torch.Generator().manual_seed(key))
        num_starts = self.text.num_targets - self.length + 1
        starts = ((indices + shift) * (num_starts / len(self))).long().clamp_(max=num_starts - 1)
        return self.text.cut(starts, self.length, scored_from=starts)


class EveryToken:
    """Windows of a text that score each target exactly once.

    A window begins `stride` after the one before, and of what both read the first has the score: from the second
    on, every target is scored with at least `length` − `stride` tokens before its own window's scores. The last
    window is moved back until it fits. All have the same length.

    Args:
        text: to cut.
        length: tokens of a window, or of the text if that has fewer.
        stride: from 1 to `length`, at which windows do not overlap.

    Raises:
        ValueError: for another stride.
    """

    unit: ClassVar[str] = "window"

    def __init__(self, text: TextSet, length: int, *, stride: int | None = None) -> None:
        stride = length if stride is None else stride
        if not 1 <= stride <= length:
            raise ValueError(
                f"stride = {stride} for windows of {length} tokens. Windows leave out nothing if the stride is from 1 "
                "to their length: choose such a one."
            )
        self.text = text
        self.length = min(length, text.num_targets)
        self.stride = min(stride, self.length)

    def __len__(self) -> int:
        return 1 + -(-(self.text.num_targets - self.length) // self.stride)

    def batch(self, indices: Tensor, key: int | None = None) -> TextBatch:
        """Returns the windows at `indices` (B,)."""
        starts = (indices * self.stride).clamp_(max=self.text.num_targets - self.length)
        ends_before = (indices - 1) * self.stride + self.length
        return self.text.cut(starts, self.length, scored_from=torch.where(indices > 0, ends_before, 0))


class Streams:
    """A text in rows that are read side by side from one end to the other, for networks with memory.

    Each batch goes on where the one before ended. Rows have the same length; where they would not, they overlap by
    a token, which counts once. Each row but the first begins without what comes before it in the text.

    Args:
        text: to cut.
        length: tokens of each row of a batch, fewer in the last.
        num_rows: read side by side, at most as many as there are targets.
        rows: those of this process; None for all.
    """

    unit: ClassVar[str] = "segment"

    def __init__(self, text: TextSet, length: int, *, num_rows: int, rows: slice | None = None) -> None:
        self.text = text
        self.length = length
        num_rows = min(num_rows, text.num_targets)
        self._row_length = -(-text.num_targets // num_rows)
        starts = torch.arange(num_rows) * (text.num_targets - self._row_length) // max(num_rows - 1, 1)
        scored_from = torch.cat((torch.zeros(1, dtype=torch.int64), starts[:-1] + self._row_length))
        self._starts, self._scored_from = (x[rows or slice(None)] for x in (starts, scored_from))

    def __len__(self) -> int:
        return -(-self._row_length // self.length)

    def batch(self, indices: Tensor, key: int | None = None) -> TextBatch:
        """Returns the segment at the only index, (1,): one part of each row."""
        done = int(indices) * self.length
        length = min(self.length, self._row_length - done)
        return self.text.cut(self._starts + done, length, scored_from=self._scored_from, goes_on=done > 0)
