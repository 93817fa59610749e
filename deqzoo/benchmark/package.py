"""From a training run to a release: weights, figures, log and card."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from deqzoo.benchmark.measure import measure, training_facts
from deqzoo.benchmark.measure_text import measure_text
from deqzoo.benchmark.seeds import measured_seed, merit, seeds_of
from deqzoo.data import ImageData, TextData
from deqzoo.models import entry
from deqzoo.zoo import load, save
from deqzoo.zoo.cards import write_card
from deqzoo.zoo.checkpoint import Checkpoint, read_checkpoint
from deqzoo.zoo.embed import take_over_results
from deqzoo.zoo.release import (
    CARD_FILE,
    LOG_FILE,
    RECIPE_FILE,
    RESULTS_FILE,
    read_results,
    release_log,
    write_results,
)
from deqzoo.zoo.run_log import training_budget, write_rows
from deqzoo.zoo.told_by_author import ToldByAuthor
from deqzoo.zoo.weights_config import read_config


def package(
    checkpoint: Path,
    destination: Path,
    *,
    data: ImageData | TextData,
    name: str | None = None,
    half: bool = False,
    other_seeds: Sequence[Path] = (),
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes a release, a folder that `deqzoo.load` reads, and returns the evaluation of the weights in it.

    The weights are saved first, read back and measured as they are stored. Beside model.safetensors and config.json it
    holds results.json, the run's settings and log, plots if matplotlib is installed, and README.md, the card. A table
    tried.csv of the run, of what was compared before, and paragraphs remarks.txt, of what else a reader should know, go
    along and into the card.

    Args:
        checkpoint: of a task; its run's log is looked for beside it.
        destination: is made if it does not exist; files of these names in it are replaced.
        data: the test set.
        name: of the model, if other than the run's.
        half: whether float32 weights are stored in float16.
        other_seeds: runs of the same recipe with other seeds, or their checkpoints: what they reach goes into the card.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.

    Raises:
        WeightsError: if a checkpoint or what its author tells is damaged, weights do not fit their model, or another
            run is none that `seeds_of` takes.
        DataError: if the data cannot be read.
    """
    source, told = read_checkpoint(checkpoint), ToldByAuthor.beside(checkpoint)
    name = entry(name or source.name).name
    training = training_facts(source.log, epochs=source.epochs, steps=source.steps)
    seeds = seeds_of(other_seeds, name=source.name, settings=source.log.config, training=training)
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "progress": progress}
    with tempfile.TemporaryDirectory() as scratch:
        save(load(checkpoint).net, scratch, name=name, half=half)
        model: Any = load(Path(scratch))
    results = _measured(model, data, name=name, settings=source.log.config, **options)
    results["training"] = training
    results["half"] = half
    results["seeds"] = [
        merit(training["seed"], results["evaluation"]),
        *(
            measured_seed(run, data, name=name, seed=seed, **options)
            for run, seed in zip(other_seeds, seeds, strict=True)
        ),
    ]
    save(model.net, destination, name=name, half=half)
    write_results(destination, results)
    take_over_results(destination)
    _keep_run(source, destination)
    told.write(destination)
    write_card(destination, destination / CARD_FILE, plots=destination)
    return {"name": name, **results["evaluation"]}


def remeasure(
    folder: Path,
    *,
    data: ImageData | TextData,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures the weights of a release again, writes results.json and config.json, and returns the evaluation.

    What was kept of the training stays. The card is left as it is: `write_card` follows.

    Args:
        folder: of the release.
        data: the test set.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.
    """
    name = read_config(folder).name
    before = read_results(folder) if (folder / RESULTS_FILE).is_file() else {}
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "progress": progress}
    results = _measured(load(folder), data, name=name, settings=release_log(folder).config, **options)
    results["training"] = before.get("training") or training_facts(release_log(folder))
    results["half"] = before.get("half", False)
    first = merit(results["training"]["seed"], results["evaluation"])
    results["seeds"] = [first, *before.get("seeds", [])[1:]]
    write_results(folder, results)
    take_over_results(folder)
    return {"name": name, **results["evaluation"]}


def _measured(
    model: Any, data: ImageData | TextData, *, name: str, settings: Mapping[str, Any], **options: Any
) -> dict[str, Any]:
    if isinstance(data, TextData):
        return measure_text(model, data, name=name, budget=training_budget(settings), **options)
    return measure(model, data, name=name, **options)


def _keep_run(source: Checkpoint, destination: Path) -> None:
    log = source.log
    if log.config:
        (destination / RECIPE_FILE).write_text(yaml.safe_dump(log.config, sort_keys=False), "utf-8")
    if log.rows:
        write_rows(log.rows, destination / LOG_FILE)
