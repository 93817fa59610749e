"""What is known of the data sets of language models."""

from dataclasses import dataclass
from typing import Literal

TEXT_GENERATION = "text-generation"
"""What language models are for, in the words of the Hub."""


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """A text that language models are measured on.

    Attributes:
        dataset: its name.
        level: of its tokens: "char" or "word".
        vocab_size: number of different tokens.
        split: on which published figures are.
        license: as its owners state it.
    """

    dataset: str
    level: Literal["char", "word", "bpe"]
    vocab_size: int
    split: Literal["val", "test"]
    license: str


TEXT_SPECS = {
    spec.dataset: spec
    for spec in (
        TextSpec(dataset="tiny-shakespeare", level="char", vocab_size=65, split="val", license="public domain"),
        TextSpec(
            dataset="ptb",
            level="word",
            vocab_size=10_000,
            split="test",
            license="LDC User Agreement",
        ),
        TextSpec(dataset="wikitext-103", level="word", vocab_size=267_735, split="test", license="cc-by-sa-3.0"),
    )
}
