"""What the Hub reads of a release: the front matter of its card, and its evaluation results."""

from collections.abc import Mapping
from typing import Any

import yaml

from deqzoo import ode
from deqzoo.models import ModelEntry
from deqzoo.zoo.figures import at_least, at_most
from deqzoo.zoo.layout import LICENSE

EVAL_RESULTS_FOLDER = ".eval_results"
_METRICS = (
    ("accuracy", "accuracy", "Accuracy (%)", lambda v: at_least(v)),
    ("loss", "loss", "Cross-entropy", lambda v: at_most(v, 4)),
    ("perplexity", "perplexity", "Perplexity", lambda v: at_most(v)),
)
"""Key of the evaluation, type, name, and how it is rounded: merits down, costs up."""


def front_matter(entry: ModelEntry, evaluation: Mapping[str, Any]) -> str:
    """Returns the YAML at the head of a card, with the results as `model-index`."""
    measured = [m for m in _METRICS if evaluation.get(m[0]) is not None]
    level = f" ({evaluation['level']} level)" if "level" in evaluation else ""
    result = {
        "task": {"type": entry.task},
        "dataset": {"type": entry.dataset, "name": entry.dataset, "split": evaluation.get("split", "test")},
        "metrics": [
            {"type": kind, "name": name + level, "value": float(rounded(evaluation[key]))}
            for key, kind, name, rounded in measured
        ],
    }
    return _dump(
        {
            "license": LICENSE,
            "library_name": "deqzoo",
            "pipeline_tag": entry.task,
            "tags": ["deqzoo", *_kinds(evaluation.get("solver", "")), entry.task],
            "datasets": [entry.dataset],
            "metrics": [kind for _, kind, *_ in measured if kind != "loss"],
            "model-index": [{"name": entry.name, "results": [result]}],
        }
    )


def eval_results(entry: ModelEntry, evaluation: Mapping[str, Any]) -> str:
    """Returns the content of a file in .eval_results: one entry for each metric but the loss.

    The format is that of https://huggingface.co/docs/hub/eval-results: dataset with id and task_id, value, notes.
    """
    notes = f"{evaluation['num_images']:,} test images" if "num_images" in evaluation else "test set"
    return _dump(
        [
            {
                "dataset": {"id": entry.dataset, "task_id": kind},
                "value": float(rounded(evaluation[key])),
                "notes": f"{notes}, evaluated by deqzoo",
            }
            for key, kind, _, rounded in _METRICS
            if kind != "loss" and evaluation.get(key) is not None
        ]
    )


def _kinds(solver: str | None) -> list[str]:
    """Returns what a network is that was evaluated with such a solver."""
    if solver is None:
        return []
    return ["implicit-model", "neural-ode" if hasattr(ode, solver) else "deep-equilibrium-model"]


def _dump(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
