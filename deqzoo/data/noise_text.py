"""Texts of nothing, to try out whether and how fast something runs."""

from typing import Unpack

import torch

from deqzoo.data.batches import derive_seed
from deqzoo.data.text_data import TextData, TextOptions
from deqzoo.data.text_files import Part
from deqzoo.errors import DataError, listed
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.models.vocabulary import END_OF_LINE, UNKNOWN, CharVocabulary, Vocabulary, WordVocabulary

_FIRST_CHAR = 33  # behind it there are characters enough that are no white space


class NoiseText(TextData):
    """Random tokens, in the number and at about the frequencies (Zipf's law) of a data set.

    Args:
        like: a data set of `TEXT_SPECS`, whose vocabulary has as many tokens.
        num_tokens: of the training text; validation and test, the same, have a tenth of them.
        **options: of `TextData`.

    Raises:
        DataError: if there is no such data set.
    """

    def __init__(self, like: str, *, num_tokens: int = 200_000, **options: Unpack[TextOptions]) -> None:
        if like not in TEXT_SPECS:
            raise DataError(
                f"like = {like!r} is no text whose tokens are specified. Use one of {listed(TEXT_SPECS, 12)}."
            )
        if num_tokens < 20:
            raise ValueError(f"num_tokens = {num_tokens}. A tenth of them has to have two at least: use 20 or more.")
        spec = TEXT_SPECS[like]
        if options.get("vocabulary") is None:
            options["vocabulary"] = _numbered(spec.level, spec.vocab_size)
        super().__init__(".", level=spec.level, **options)
        self.title = f"noise like {like}"
        self.num_tokens = num_tokens

    def read(self) -> dict[Part, str]:
        """Returns the parts, the same for the same seed."""
        train, val = self._draw("train", self.num_tokens), self._draw("val", self.num_tokens // 10)
        return {"train": train, "val": val, "test": val, "all": train + val}

    def _draw(self, part: str, count: int) -> str:
        generator = torch.Generator().manual_seed(derive_seed("noise", part, self.seed))
        # The logarithm of a rank is uniform where frequency falls with the inverse of the rank.
        ranks = len(self.vocabulary) ** torch.rand(count, dtype=torch.float64, generator=generator)
        return self.vocabulary.decode((ranks.long() - 1).clamp_(0, len(self.vocabulary) - 1).tolist())


def _numbered(level: str, size: int) -> Vocabulary:
    if level == CharVocabulary.level:
        return CharVocabulary("".join(chr(_FIRST_CHAR + i) for i in range(size)))
    return WordVocabulary((UNKNOWN, END_OF_LINE, *(f"w{i}" for i in range(2, size))))
