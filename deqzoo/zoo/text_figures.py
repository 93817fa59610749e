"""Figures of language models in words, rounded as those of others."""

from collections.abc import Mapping
from typing import Any

from deqzoo.solution import Status
from deqzoo.zoo.rounding import at_least, at_most, cost

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
UNITS = {"char": "character", "word": "word", "bpe": "piece of a word (BPE)"}


def text_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the figures of a `TextEvaluation` that are there."""
    unit = UNITS[figures["level"]]
    sees = f"up to {figures['context']:,} tokens at once"
    if figures["memory"]:
        sees += f", and remembers {figures['memory']:,} before them"
    elif figures["stride"] < figures["context"]:
        sees += f", of which {figures['context'] - figures['stride']:,} at least lie before what is scored"
    rows = [
        ("loss", f"{cost(figures['loss'])} nats per {unit}"),
        (f"{figures['level']} perplexity", cost(figures["perplexity"], 2)),
        ("bits per character", f"{cost(figures['bits_per_char'])} (of the {figures['num_chars']:,} in the text)"),
        ("context", sees),
    ]
    if figures["evals_mean"] is not None:
        rows += [
            (
                "evaluations",
                f"{at_most(figures['evals_mean'])} per token in the mean, p95 of windows {figures['evals_p95']:g}, at "
                f"most {figures['evals_max']}",
            ),
            (
                "converged",
                f"{at_least(100 * figures['converged'])} % of positions at rtol {figures['rtol']:g}, within "
                f"{figures['max_steps']} steps of {figures['solver']}",
            ),
            ("worst residual", cost(figures["residual_max"], significant=True)),
        ]
    for status in (Status.MAX_STEPS, Status.STALLED, Status.NONFINITE):
        count = figures.get(f"num_{status.name.lower()}", 0)
        if count:
            rows.append(("not converged", f"{count:,} of {figures['num_windows']:,} windows {status.describe()}"))
    if "tokens_per_second" in figures:
        count = figures["num_threads"]
        threads = f", {count} thread{'' if count == 1 else 's'}" if figures["device"] == "cpu" else ""
        rows.append(
            (
                "speed",
                f"{int(figures['tokens_per_second']):,} tokens/s ({figures['device']}{threads}, {figures['dtype']}, "
                f"batches of {figures['batch_size']})",
            )
        )
    rows.append(("parameters", f"{figures['num_parameters']:,}"))
    return rows
