"""Model cards: Markdown with the metadata of the Hub, every figure from a measurement."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deqzoo.models import INPUT_SPECS, ModelEntry
from deqzoo.version import __version__
from deqzoo.zoo.figures import at_least, at_most, certificate_rows, evaluation_rows
from deqzoo.zoo.layout import LICENSE


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from.

    Attributes:
        epochs: that were completed when they were saved.
        steps: optimiser steps, likewise.
        run_config: configuration of the run.
        curve: file of the training curves, relative to the card.
        log: file of the training log, relative to the card.
        recipe: file of the configuration, relative to the card.
        half: whether they are stored in float16.
    """

    epochs: int
    steps: int
    run_config: Mapping[str, Any]
    curve: str | None
    log: str | None
    recipe: str | None
    half: bool


def render_card(
    entry: ModelEntry,
    *,
    evaluation: Mapping[str, Any],
    certificate: Mapping[str, Any] | None,
    provenance: Provenance,
) -> str:
    """Returns the card of the weights of a configuration.

    Args:
        entry: the configuration.
        evaluation: figures of the stored weights on the test set, as `Evaluation.as_dict` gives them.
        certificate: figures of `certify`, None for models without a certificate.
        provenance: how they were made.
    """
    parts = [
        f"---\n{_metadata(entry, evaluation)}---",
        f"# {entry.name}",
        f"{entry.description} Weights of {evaluation['num_parameters']:,} parameters for "
        f"{entry.task.replace('-', ' ')} on {entry.dataset}.",
        _use(entry),
        f"## Results\n\nOn the {evaluation['num_images']:,} test images of {evaluation['data']}, with the "
        f"weights as they are stored (deqzoo {__version__}, torch {evaluation['torch_version']}).\n\n"
        + _table(evaluation_rows(evaluation)),
        _inputs(entry),
    ]
    if certificate is not None:
        parts.append(
            "## Certificate\n\nIts equilibria provably exist, are unique, and are reached by plain "
            "iteration from zero: after k iterations every component is within cᵏ of its limit, relatively. "
            f"Recomputed from the stored weights for {certificate['num_images']:,} images of "
            f"{certificate['data']}, one value for each equilibrium in turn; rates and bounds are upper "
            "ones, up to rounding in float64.\n\n" + _table(certificate_rows(certificate))
        )
    parts += [_training(entry, provenance), _licences(entry), _limits(entry, evaluation, provenance)]
    return "\n\n".join(parts) + "\n"


def _metadata(entry: ModelEntry, evaluation: Mapping[str, Any]) -> str:
    metrics = [{"type": "accuracy", "name": "Accuracy (%)", "value": float(at_least(evaluation["accuracy"]))}]
    if evaluation["loss"] is not None:
        metrics.append({"type": "loss", "name": "Cross-entropy", "value": float(at_most(evaluation["loss"], 4))})
    result = {
        "task": {"type": entry.task},
        "dataset": {"type": entry.dataset, "name": entry.dataset, "split": "test"},
        "metrics": metrics,
    }
    return yaml.safe_dump(
        {
            "license": LICENSE,
            "library_name": "deqzoo",
            "pipeline_tag": entry.task,
            "tags": ["deqzoo", "implicit-model", "deep-equilibrium-model", entry.task],
            "datasets": [entry.dataset],
            "metrics": ["accuracy"],
            "model-index": [{"name": entry.name, "results": [result]}],
        },
        sort_keys=False,
        allow_unicode=True,
    )


def _use(entry: ModelEntry) -> str:
    return f"""## Use

```python
import deqzoo
from PIL import Image

model = deqzoo.load("{entry.name}")
logits = model(model.transform(Image.open("image.png"))[None])
```

```sh
deqzoo predict {entry.name} image.png
deqzoo eval {entry.name} --data {entry.dataset} --root data
```"""


def _inputs(entry: ModelEntry) -> str:
    spec = INPUT_SPECS[entry.dataset]
    height, width = spec.size
    channels = "grey" if spec.channels == 1 else "RGB"
    return "## Inputs\n\n" + _table(
        [
            ("images", f"{channels}, {height}x{width}; others are scaled and cut by `.transform`"),
            ("mean, std of pixels in [0, 1]", f"{list(spec.mean)}, {list(spec.std)}"),
            ("labels", ", ".join(spec.label_names)),
        ]
    )


def _training(entry: ModelEntry, provenance: Provenance) -> str:
    config = provenance.run_config
    planned = (config.get("trainer") or {}).get("max_epochs")
    seed = config.get("seed_everything")
    done = f"{provenance.epochs} epochs ({provenance.steps:,} steps)"
    lines = [
        "## Training",
        "The weights after "
        f"{done}{f' of {planned} planned' if planned not in (None, provenance.epochs) else ''}"
        f"{f', seed {seed}' if isinstance(seed, int) else ''}, by",
    ]
    recipe = f"recipes/{entry.recipe}.yaml" if entry.recipe else provenance.recipe
    lines.append(f"```sh\ndeqzoo fit -c {recipe}\n```" if recipe else "(no recipe was kept).")
    kept = [f"[{what}]({file})" for what, file in (("log", provenance.log), ("settings", provenance.recipe)) if file]
    if kept:
        lines.append(f"What the run wrote down: {', '.join(kept)}.")
    if provenance.curve:
        lines.append(f"![Training curves]({provenance.curve})")
    return "\n\n".join(lines)


def _licences(entry: ModelEntry) -> str:
    return "## Licences\n\n" + _table(
        [("weights", LICENSE), (f"data ({entry.dataset})", INPUT_SPECS[entry.dataset].license)]
    )


def _limits(entry: ModelEntry, evaluation: Mapping[str, Any], provenance: Provenance) -> str:
    limits = [
        f"Trained for the classes of {entry.dataset} alone: any other image gets one of them too, often with "
        "confidence. The shares that it gives are not tested off its data set.",
        f"One training run. The interval above is that of {evaluation['num_images']:,} test images; another "
        "seed may fall outside of it.",
    ]
    if evaluation["converged"] is not None and evaluation["converged"] < 1:
        lost = at_most(100 * (1 - evaluation["converged"]))
        limits.append(f"{lost} % of test images miss the tolerance; their predictions count in all figures.")
    if provenance.half:
        limits.append("Stored in float16 and widened on loading; the figures are those of the stored weights.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows)])
