"""What corrupted images do to a network: to its accuracy, to its solves, and to how long it thinks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from deqzoo.benchmark.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.given_images import GivenImages
from deqzoo.benchmark.subjects import Subject
from deqzoo.data import ImageData, ImageSet
from deqzoo.errors import DataError
from deqzoo.zoo.rounding import at_least, at_most
from deqzoo.zoo.solve_figures import converged_share
from deqzoo.zoo.svg import COLOURS, can_draw, write_svg
from deqzoo.zoo.tables import markdown_table, write_csv

CLEAN = "none"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network on the test images under one corruption.

    Attributes:
        name: of the network.
        corruption: a key of `CORRUPTIONS`, or "none".
        severity: from 1 to 5, 0 without corruption.
        num_images: that were looked at.
        accuracy: in per cent.
        accuracy_low: lower end of its 95 % interval.
        accuracy_high: upper end.
        calibration_error: from 0 to 1.
        converged: share of images, from 0 to 1; None with fixed budgets and, as all below, without equilibria.
        evals_mean: evaluations of f for each image, summed over its equilibria.
        evals_p95: 95th percentile.
        evals_max: the most.
    """

    name: str
    corruption: str
    severity: int
    num_images: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    calibration_error: float | None
    converged: float | None
    evals_mean: float | None
    evals_p95: float | None
    evals_max: int | None


_FIGURES = tuple(Trial.__dataclass_fields__)[3:]


def try_corruptions(
    subjects: Sequence[Subject],
    data: ImageData,
    *,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> list[Trial]:
    """Returns how each network does on the test images as they are, and under each corruption. All see the same images.

    Args:
        subjects: the networks; their weights are trained.
        data: the test set.
        kinds: keys of `CORRUPTIONS`.
        severities: of each.
        seed: of the corruptions.
        device: where to run.
        batch_size: most images at once.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        DataError: if weights are random, the data cannot be read, or has other labels than the networks.
        StructureError: if the images have another size or other channels.
        ValueError: if there is no such corruption or severity.
    """
    untrained = [subject.name for subject in subjects if not subject.trained]
    if untrained:
        raise DataError(
            f"{', '.join(untrained)} has random weights. Robustness is that of trained ones: train it first, or give "
            "a file of weights."
        )
    images = data.image_set("test")
    pixels = images.images[: len(images)]
    plan = [(CLEAN, 0), *((kind, severity) for kind in kinds for severity in severities)]
    trials = []
    with tqdm(
        total=len(plan) * len(subjects), desc="corrupting", unit="set", disable=None if progress else True
    ) as bar:
        for kind, severity in plan:
            changed = pixels if kind == CLEAN else corrupted(pixels, kind, severity, seed=seed)
            given = GivenImages(data.spec, ImageSet(images=changed, labels=images.labels))
            for subject in subjects:
                found = evaluate(subject.model, given, device=device, batch_size=batch_size).as_dict()
                kept: dict[str, Any] = {key: found[key] for key in _FIGURES}
                trials.append(Trial(name=subject.name, corruption=kind, severity=severity, **kept))
                bar.update()
    return trials


def write_trials(trials: Sequence[Trial], header: Mapping[str, Any], folder: Path, base: str) -> list[Path]:
    """Writes JSON, CSV and Markdown and, if matplotlib is installed, the plot. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{base}.{suffix}" for suffix in ("json", "csv", "md")]
    rows = [asdict(trial) for trial in trials]
    files[0].write_text(json.dumps({"header": dict(header), "trials": rows}, indent=1, allow_nan=False) + "\n", "utf-8")
    write_csv(rows, files[1])
    files[2].write_text(trials_markdown(rows) + "\n", "utf-8")
    plot = folder / f"{base}.svg"
    return [*files, plot] if draw_thinking(rows, plot) else files


def trials_markdown(trials: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: of each network and corruption, accuracy and evaluations at each severity."""
    severities = sorted({trial["severity"] for trial in trials if trial["severity"]})
    rows = [["network", "corruption", *(f"severity {s}" for s in severities)]]
    for name, kind in dict.fromkeys((trial["name"], trial["corruption"]) for trial in trials):
        here = {t["severity"]: t for t in trials if (t["name"], t["corruption"]) == (name, kind)}
        cells = (
            [_cell(here[0])] + [""] * (len(severities) - 1) if kind == CLEAN else [_cell(here[s]) for s in severities]
        )
        rows.append([name, kind, *cells])
    return markdown_table(rows)


def mean_trials_markdown(trials: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table: of each network, means over all corruptions of each severity."""
    severities = sorted({trial["severity"] for trial in trials})
    rows = [["network", *(f"severity {s}" if s else CLEAN for s in severities)]]
    for name in dict.fromkeys(trial["name"] for trial in trials):
        mine = [trial for trial in trials if trial["name"] == name]
        rows.append([name, *(_cell(_mean([t for t in mine if t["severity"] == s])) for s in severities)])
    return markdown_table(rows)


def draw_thinking(trials: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draws accuracy and, of implicit networks, evaluations over severity, a line for each corruption.

    Does an implicit network think longer on harder images?

    Returns:
        Whether a file was written: not without matplotlib, nor for explicit networks alone.
    """
    names = list(dict.fromkeys(trial["name"] for trial in trials if trial["evals_mean"] is not None))
    if not names or not can_draw():
        return False
    kinds = dict.fromkeys(trial["corruption"] for trial in trials if trial["corruption"] != CLEAN)

    def draw(figure: Any) -> None:
        grid = figure.subplots(len(names), 2, squeeze=False)
        for (left, right), name in zip(grid, names, strict=True):
            mine = [trial for trial in trials if trial["name"] == name]
            clean = [trial for trial in mine if trial["corruption"] == CLEAN]
            for kind, colour in zip(kinds, cycle(COLOURS), strict=False):
                line = clean + [trial for trial in mine if trial["corruption"] == kind]
                severities = [trial["severity"] for trial in line]
                for axes, key in ((left, "accuracy"), (right, "evals_mean")):
                    axes.plot(severities, [t[key] for t in line], color=colour, linewidth=1.2, marker="o", markersize=3)
            left.set(xlabel="severity", ylabel="accuracy (%)", title=name)
            right.set(xlabel="severity", ylabel="evaluations per image")
        figure.legend(list(kinds), loc="outside right upper", frameon=False, fontsize=7)

    write_svg(path, draw, size=(7.5, 2.6 * len(names)))
    return True


def _mean(trials: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    columns = {key: [trial[key] for trial in trials] for key in ("accuracy", "converged", "evals_mean")}
    return {key: None if None in column else fmean(column) for key, column in columns.items()}


def _cell(trial: Mapping[str, Any]) -> str:
    if trial["evals_mean"] is None:
        return f"{at_least(trial['accuracy'])} %"
    lost = "" if trial["converged"] in (1, None) else f", {converged_share(trial['converged'])} converged"
    return f"{at_least(trial['accuracy'])} %, {at_most(trial['evals_mean'])} evaluations{lost}"
