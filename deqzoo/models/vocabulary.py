"""From text to the numbers that language models read, and back."""

import abc
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Self

from deqzoo.errors import VocabularyError, listed

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
"""As in the Penn Treebank's files and in the literature that counts their tokens."""
MAX_TOKENS = 4_000_000


@dataclass(frozen=True)
class Vocabulary(abc.ABC):
    """The tokens of a text, numbered from 0. A value: two are equal if they read every text alike."""

    level: ClassVar[str]
    """What a token is: "char", "word" or "bpe". Perplexities of different levels cannot be compared."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of tokens."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the numbers of the tokens of `text`.

        Raises:
            VocabularyError: for what no token stands for.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens."""

    @abc.abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Returns plain values of JSON, which `vocabulary_from` reads."""

    def difference(self, other: "Vocabulary") -> str:
        """Returns in words what the first difference to another vocabulary is, "" if there is none."""
        if self == other:
            return ""
        if (self.level, len(self)) != (other.level, len(other)):
            return f"{len(self):,} tokens of level {self.level} against {len(other):,} of level {other.level}"
        pairs = ((i, self.decode([i]), other.decode([i])) for i in range(len(self)))
        first = next((f"token {i} is {a!r} against {b!r}" for i, a, b in pairs if a != b), None)
        return first or "the rules that split text into tokens"


@dataclass(frozen=True)
class CharVocabulary(Vocabulary):
    """Every character is a token; there is none for unknown ones.

    Attributes:
        chars: in the order of their numbers.
    """

    chars: str
    level: ClassVar[str] = "char"

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Returns the characters that occur, in the order of their code points."""
        return cls("".join(sorted(set(chain.from_iterable(map(set, texts))))))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {char: i for i, char in enumerate(self.chars)}

    def __len__(self) -> int:
        return len(self.chars)

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        try:
            return [ids[char] for char in text]
        except KeyError:
            strange = [repr(char) for char in sorted(set(text) - ids.keys())]
            raise VocabularyError(
                f"The text has characters that the vocabulary does not: {listed(strange, 8)}. It knows "
                f"{len(self)} characters and no token for others: replace these, or remove them."
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.chars[i] for i in ids)

    def as_dict(self) -> dict[str, Any]:
        return {"level": self.level, "tokens": self.chars}


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """Words between white space, as in the Penn Treebank and WikiText; the end of a line is the token <eos>.

    A word that is not known reads as <unk>. White space is not kept: decoded words have one space between them.

    Attributes:
        words: in the order of their numbers, <unk> and <eos> among them.
    """

    words: tuple[str, ...]
    level: ClassVar[str] = "word"

    @classmethod
    def of(cls, texts: Iterable[str], *, max_tokens: int | None = None) -> Self:
        """Returns the words that occur, the most frequent first (ties in alphabetical order), and <eos> and <unk>.

        Args:
            texts: to count words in.
            max_tokens: most tokens to keep; None for all.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split())
            counts[END_OF_LINE] += text.count("\n")
        counts.setdefault(UNKNOWN, 0)
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        if max_tokens is not None and max_tokens < len(ordered):
            always = (UNKNOWN, END_OF_LINE)
            words = [word for word in ordered if word not in always][: max(0, max_tokens - len(always))]
            kept = {*words, *always}
            ordered = [word for word in ordered if word in kept]
        return cls(tuple(ordered))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        ids, unknown = self._ids, self._ids[UNKNOWN]
        return [ids.get(word, unknown) for word in text.replace("\n", f" {END_OF_LINE} ").split()]

    def decode(self, ids: Iterable[int]) -> str:
        lines = " ".join(self.words[i] for i in ids).split(END_OF_LINE)
        return "\n".join(line.strip(" ") for line in lines)

    def as_dict(self) -> dict[str, Any]:
        return {"level": self.level, "tokens": list(self.words)}


def vocabulary_from(plain: Any) -> Vocabulary:
    """Returns the vocabulary that `as_dict` gave the values of. Whoever wrote them may be anyone.

    Raises:
        VocabularyError: if they are none.
    """
    level = plain.get("level") if isinstance(plain, dict) else None
    if level == "bpe":
        from deqzoo.models.bpe import BPEVocabulary

        return BPEVocabulary.from_json(plain.get("tokenizer"))
    tokens = plain.get("tokens") if isinstance(plain, dict) else None
    if level == CharVocabulary.level and isinstance(tokens, str) and _are_distinct(tokens):
        return CharVocabulary(tokens)
    if level == WordVocabulary.level and isinstance(tokens, list) and _are_words(tokens):
        return WordVocabulary(tuple(tokens))
    raise VocabularyError(
        f"{reprlib.repr(plain)} is no vocabulary. One has a level (char, word or bpe) and its tokens, each once "
        f"({UNKNOWN} and {END_OF_LINE} among words): take an undamaged copy."
    )


def _are_distinct(tokens: Sequence[str]) -> bool:
    return 0 < len(set(tokens)) == len(tokens) <= MAX_TOKENS


def _are_words(tokens: list[Any]) -> bool:
    if not all(isinstance(word, str) and word.split() == [word] for word in tokens):
        return False
    return _are_distinct(tokens) and {UNKNOWN, END_OF_LINE} <= set(tokens)
