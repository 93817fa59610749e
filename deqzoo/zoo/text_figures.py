"""Figures of language models in words, rounded as those of others."""

from collections.abc import Mapping
from typing import Any

from deqzoo.zoo.rounding import cost
from deqzoo.zoo.solve_figures import Units, machine_rows, solve_rows

TEXT_HEADLINES = (
    "split",
    "level",
    "num_tokens",
    "num_chars",
    "perplexity",
    "bits_per_char",
    "context",
    "stride",
    "memory",
)
"""Figures of an evaluation that only texts have, and that belong to the weights and not to the machine."""
TOKENS = Units(sample="token", solved="window", judged="position", several=False)
UNITS = {"char": "character", "word": "word", "bpe": "piece of a word (BPE)"}


def text_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the figures of a `TextEvaluation` that are there."""
    unit = UNITS[figures["level"]]
    sees = f"up to {figures['context']:,} tokens at once"
    if figures["memory"]:
        sees += f", and remembers {figures['memory']:,} before them"
    elif figures["stride"] < figures["context"]:
        sees += f", of which {figures['context'] - figures['stride']:,} at least lie before what is scored"
    return [
        ("loss", f"{cost(figures['loss'])} nats per {unit}"),
        (f"{figures['level']} perplexity", cost(figures["perplexity"], 2)),
        ("bits per character", f"{cost(figures['bits_per_char'])} (of the {figures['num_chars']:,} in the text)"),
        ("context", sees),
        *solve_rows(figures, TOKENS),
        *machine_rows(figures, TOKENS),
    ]
