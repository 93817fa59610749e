"""Model cards: Markdown with the metadata of the Hub, every figure from results.json, but for what its author tells."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deqzoo.errors import listed
from deqzoo.models import INPUT_SPECS, ModelEntry, entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo.card_metadata import front_matter
from deqzoo.zoo.card_sections import citations, convergence, licences, limits, table, training
from deqzoo.zoo.curves import draw_budgets, draw_curves
from deqzoo.zoo.figures import (
    at_least,
    cost_rows,
    curve_rows,
    evaluation_rows,
    over_tolerances,
)
from deqzoo.zoo.release import LOG_FILE, RECIPE_FILE, RESULTS_FILE, read_results, release_log
from deqzoo.zoo.rounding import at_most, cost
from deqzoo.zoo.solve_figures import converged_share
from deqzoo.zoo.tables import markdown_table
from deqzoo.zoo.text_cards import text_budget_rows, text_inputs, text_use, text_where, text_written
from deqzoo.zoo.text_figures import UNITS
from deqzoo.zoo.told_by_author import authors_sections
from deqzoo.zoo.weights_config import read_config

TRAINING_PLOT, BUDGET_PLOT = "training.svg", "budgets.svg"


def write_card(folder: Path, card: Path, *, plots: Path, repo: str | None = None) -> None:
    """Draws the plots of a release, if matplotlib is installed, and writes its card.

    Args:
        folder: of the release.
        card: the file to write.
        plots: where to draw.
        repo: "org/name" that it goes to, if it does.
    """
    plots.mkdir(parents=True, exist_ok=True)
    draw_curves(release_log(folder), plots / TRAINING_PLOT)
    draw_budgets(read_results(folder).get("curve") or [], plots / BUDGET_PLOT)
    card.write_text(render_card(folder, card, plots=plots, repo=repo), "utf-8")


def render_card(folder: Path, card: Path, *, plots: Path, repo: str | None = None) -> str:
    """Returns the card of a release, of its results and its run. Arguments as for `write_card`.

    Raises:
        WeightsError: if the release has no results, or is damaged.
    """
    results, config = read_results(folder), read_config(folder)
    found, evaluation = entry(config.name), results["evaluation"]

    def link(path: Path) -> str | None:
        return Path(os.path.relpath(path, card.parent)).as_posix() if path.is_file() else None

    kept = {name: link(folder / name) for name in (LOG_FILE, RECIPE_FILE)}
    parts = (
        f"---\n{front_matter(found, evaluation)}---",
        f"# {found.name}",
        f"{found.description} Weights of {evaluation['num_parameters']:,} parameters for "
        f"{found.task.replace('-', ' ')} on {found.dataset}.",
        _use(found, repo),
        _results(results, link(folder / RESULTS_FILE)),
        _budgets(results.get("curve") or [], link(plots / BUDGET_PLOT)),
        _text_budgets(results.get("budgets") or []),
        text_written(results["written"]) if "written" in results else None,
        convergence(results),
        _inputs(found, evaluation),
        training(found, results, kept, link(plots / TRAINING_PLOT)),
        *authors_sections(folder),
        licences(found),
        limits(found, results),
        citations(found),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _use(found: ModelEntry, repo: str | None) -> str:
    source = f"hf-hub:{repo}" if repo else found.name
    if found.dataset in TEXT_SPECS:
        return text_use(source, found.dataset)
    if found.dataset not in INPUT_SPECS:
        return f'## Use\n\n```python\nimport deqzoo\n\nmodel = deqzoo.load("{source}")\n```'
    timm = f"""

```python
import deqzoo, timm

net = timm.create_model("{source}", pretrained=True)
```"""
    return f"""## Use

```python
import deqzoo
from PIL import Image

model = deqzoo.load("{source}")
logits = model(model.transform(Image.open("image.png"))[None])
```

```sh
deqzoo predict {source} image.png
deqzoo eval {source} --data {found.dataset} --root data
deqzoo verify {source}
```{timm if repo else ""}"""


def _over_seeds(seeds: Sequence[Mapping[str, Any]], *, level: str | None) -> tuple[str, str]:
    """Returns (what, how much) for runs of one recipe: mean and sample standard deviation, and each."""
    if level is None:
        what, unit, say, values = "accuracy", " %", at_least, [seed["accuracy"] for seed in seeds]
    elif level == "word":
        what, unit, say, values = "word perplexity", "", at_most, [seed["perplexity"] for seed in seeds]
    else:
        what, unit, say = "loss", f" nats per {UNITS[level]}", cost
        values = [math.log(seed["perplexity"]) for seed in seeds]
    each = ", ".join(f"{say(value)} (seed {seed['seed']})" for value, seed in zip(values, seeds, strict=True))
    mean, deviation = say(statistics.fmean(values)), cost(statistics.stdev(values))
    return f"{what}, {len(seeds)} seeds", f"{mean} ± {deviation}{unit}: {each}"


def _results(results: Mapping[str, Any], file: str | None) -> str:
    evaluation, seeds = results["evaluation"], results.get("seeds") or []
    # Speed is told with the device's own name instead.
    rows = [row for row in evaluation_rows(evaluation) if row[0] != "speed"]
    if len(seeds) > 1:
        rows.insert(1, _over_seeds(seeds, level=evaluation.get("level")))
        if all("converged" in seed for seed in seeds):
            shares = [f"{converged_share(seed['converged'])} (seed {seed['seed']})" for seed in seeds]
            rows.insert(2, (f"converged, {len(seeds)} seeds", ", ".join(shares)))
    where = f"the {evaluation['num_images']:,} test images of" if "num_images" in evaluation else "the test set of"
    if "level" in evaluation:
        where = text_where(evaluation)
    return (
        f"## Results\n\nOn {where} {evaluation['data']}, with the weights as they are stored (deqzoo "
        f"{results['library_version']}, torch {evaluation['torch_version']}"
        f"{f'; all figures: [{RESULTS_FILE}]({file})' if file else ''}).\n\n" + table(rows + cost_rows(results))
    )


def _budgets(curve: list[Mapping[str, Any]], plot: str | None) -> str | None:
    if not curve:
        return None
    drawn = f"\n\n![Errors over the evaluations that are spent]({plot})" if plot else ""
    told = (
        "The same weights at other tolerances of the integrator."
        if over_tolerances(curve)
        else "The same weights with smaller budgets: each equilibrium stops after so many steps, whether it is found "
        "or not."
    )
    return f"## Accuracy and compute\n\n{told}\n\n{markdown_table(curve_rows(curve))}{drawn}"


def _text_budgets(budgets: list[Mapping[str, Any]]) -> str | None:
    if not budgets:
        return None
    return (
        "## Loss and compute\n\nThe loss with once, twice and four times a budget, that of training where it has one, "
        "all of them spent. At an equilibrium it would not change.\n\n" + markdown_table(text_budget_rows(budgets))
    )


def _inputs(found: ModelEntry, evaluation: Mapping[str, Any]) -> str | None:
    if found.dataset in TEXT_SPECS:
        return "## Inputs\n\n" + table(text_inputs(found.dataset, evaluation))
    spec = INPUT_SPECS.get(found.dataset)
    if spec is None:
        return None
    height, width = spec.size
    channels = "grey" if spec.channels == 1 else "RGB"
    return "## Inputs\n\n" + table(
        [
            ("images", f"{channels}, {height}x{width}; others are scaled and cut by `.transform`"),
            ("mean, std of pixels in [0, 1]", f"{list(spec.mean)}, {list(spec.std)}"),
            ("labels", listed(spec.label_names, 100)),
        ]
    )
