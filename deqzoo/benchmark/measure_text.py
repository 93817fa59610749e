"""Everything that the card of a language model tells, measured."""

from typing import Any

import torch

from deqzoo.benchmark.evaluate_text import evaluate_text, loss_over_budgets
from deqzoo.data import TextData
from deqzoo.models import entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.version import __version__

_WRITTEN: dict[str, Any] = {"max_new_tokens": 400, "temperature": 0.8, "seed": 0}
_PROMPTS = {"char": "\n", "word": "the", "bpe": "The"}


def measure_text(
    model: Any,
    data: TextData,
    *,
    name: str,
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    budget: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Returns the figures of a language model on `data`, as results.json holds them, and a text that it wrote.

    The loss is over the part that published figures of its data set are on, at the model's own tolerance, and with
    once, twice and four times a budget of evaluations.

    Args:
        model: a `LanguageModel`.
        data: the text, read with the model's vocabulary.
        name: of the model, in any spelling.
        device: where to evaluate.
        batch_size: most windows at once.
        budget: that it was trained with; None for the evaluations that the slowest window takes.
        progress: whether to show bars on a terminal's stderr.

    Raises:
        DataError: if the text cannot be read.
        VocabularyError: if its vocabulary is not the model's.
    """
    found = entry(name)
    options: dict[str, Any] = {
        "split": TEXT_SPECS[found.dataset].split,
        "device": device,
        "batch_size": batch_size,
        "progress": progress,
    }
    evaluation = evaluate_text(model, data, **options).as_dict()
    evals: Any = budget or evaluation["evals_max"]
    prompt = _PROMPTS[model.vocabulary.level]
    return {
        "name": found.name,
        "library_version": __version__,
        "evaluation": evaluation,
        "budgets": loss_over_budgets(model, data, evals=evals, **options) if evals else [],
        "written": {"prompt": prompt, **_WRITTEN, "text": model.generate(prompt, **_WRITTEN)},
    }
