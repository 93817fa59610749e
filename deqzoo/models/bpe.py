"""Byte pair encoding by the package `tokenizers`, an extra."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar, Self

from deqzoo.errors import VocabularyError
from deqzoo.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class BPEVocabulary(Vocabulary):
    """Pieces of words over bytes: every text can be written in them, and nothing of it is lost.

    Attributes:
        tokenizer: JSON of the package `tokenizers`.
    """

    tokenizer: str
    level: ClassVar[str] = "bpe"

    @classmethod
    def of(cls, texts: Iterable[str], *, max_tokens: int) -> Self:
        """Returns a vocabulary of at most `max_tokens` pieces, and at least the 256 bytes, that texts are made of.

        Raises:
            VocabularyError: without the package `tokenizers`.
        """
        package = _package()
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=max_tokens,
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """Returns the vocabulary in a tokenizer.json.

        Raises:
            VocabularyError: if it is none, or without the package `tokenizers`.
        """
        found = cls(text)
        _ = found._encoder
        return found

    @cached_property
    def _encoder(self) -> Any:
        package = _package()
        try:
            return package.Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the package raises nothing more specific
            raise VocabularyError(
                f"The vocabulary is damaged: {error}. It should be JSON of the package tokenizers: take an "
                "undamaged copy."
            ) from error

    def __len__(self) -> int:
        return self._encoder.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._encoder.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        return self._encoder.decode(list(ids), skip_special_tokens=False)

    def as_dict(self) -> dict[str, Any]:
        return {"level": self.level, "tokenizer": self.tokenizer}


def _package() -> ModuleType:
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise VocabularyError(
            "Byte pair encoding needs the package tokenizers, which is not installed. It is an extra: run "
            "`pip install deqzoo[bpe]`, or choose the level char or word."
        ) from error
    return tokenizers
