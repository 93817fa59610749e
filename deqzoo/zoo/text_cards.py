"""What only the cards of language models tell."""

from collections.abc import Mapping
from typing import Any

from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo.rounding import at_most, cost
from deqzoo.zoo.text_figures import UNITS


def text_use(source: str, dataset: str) -> str:
    """Returns how to use a language model."""
    return f"""## Use

```python
import deqzoo

model = deqzoo.load("{source}")
print(model.generate("{_prompt(dataset)}", max_new_tokens=200, temperature=0.8, seed=0))
```

```sh
deqzoo generate {source} "{_prompt(dataset)}"
deqzoo eval {source} --data {dataset} --root data
deqzoo eval {source} --data my.txt
```"""


def text_where(evaluation: Mapping[str, Any]) -> str:
    """Returns which text figures are of."""
    return (
        f"every one of the {evaluation['num_tokens']:,} tokens (level: {evaluation['level']}) that follow another in "
        f"the part {evaluation['split']!r} of"
    )


def text_budget_rows(budgets: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the loss over evaluations, header first."""
    first = budgets[0]["loss"]
    rows: list[tuple[str, ...]] = [("evaluations of each window", "loss", "change", "worst residual")]
    for point in budgets:
        loss = point["loss"]
        change = "" if loss is None or not first else f"{100 * (loss / first - 1):+.3f} %"
        rows.append((str(point["evals"]), cost(loss), change, cost(point["residual_max"], significant=True)))
    return rows


def text_written(written: Mapping[str, Any]) -> str:
    """Returns a text that a model wrote."""
    return (
        f"## A text\n\nAfter {written['prompt']!r}, at temperature {written['temperature']:g}, seed {written['seed']}; "
        f"the first one that was asked for.\n\n````text\n{written['text'].strip()}\n````"
    )


def text_inputs(dataset: str, evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a model reads."""
    unit, spec = UNITS[evaluation["level"]], TEXT_SPECS[dataset]
    unknown = "; others are an error" if spec.level == "char" else "; others read as <unk>, the end of a line as <eos>"
    return [
        ("tokens", f"{spec.vocab_size:,}, each a {unit}{unknown if spec.level != 'bpe' else ''}"),
        ("context", f"{evaluation['context']:,} tokens"),
        ("memory", f"{evaluation['memory']:,} tokens before these" if evaluation["memory"] else "none"),
    ]


def text_limits(dataset: str, evaluation: Mapping[str, Any], *, num_seeds: int) -> list[str]:
    """Returns what a model is not good for."""
    limits = [
        f"It has read nothing but {dataset}, and writes like it. It knows no facts and follows no instructions.",
        f"Perplexity is per {UNITS[evaluation['level']]}: compare it with none of another level.",
    ]
    if num_seeds < 2:
        limits.append("One training run: another seed gives other figures.")
    if evaluation["split"] == "val":
        limits.append(
            f"{dataset} has no test part: the figures are of its validation part, by which its authors compare too, "
            "and by which settings may have been chosen."
        )
    if evaluation["converged"] is not None and evaluation["converged"] < 1:
        lost = at_most(100 * (1 - evaluation["converged"]))
        limits.append(
            f"{lost} % of positions miss the tolerance by themselves; their predictions count in all figures."
        )
    return limits


def _prompt(dataset: str) -> str:
    return "ROMEO:" if TEXT_SPECS[dataset].level == "char" else "the company said"
