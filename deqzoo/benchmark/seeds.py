"""What runs of one recipe with other seeds reach: one run alone says little of a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.evaluate_text import evaluate_text
from deqzoo.benchmark.measure import training_facts
from deqzoo.data import ImageData, TextData
from deqzoo.errors import WeightsError
from deqzoo.models import entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo import load
from deqzoo.zoo.checkpoint import find_run, read_checkpoint
from deqzoo.zoo.release import read_results, write_results
from deqzoo.zoo.weights_config import read_config


def _seed(run: Path, *, name: str) -> int:
    """Returns the seed of a run that has to have trained `name`."""
    source = read_checkpoint(find_run(run))
    if source.name != name:
        raise WeightsError(f"The run in {run} trained {source.name}, not {name}: name one of the same recipe.")
    seed = training_facts(source.log)["seed"]
    if seed is None:
        raise WeightsError(f"{run} does not say which seed it had: name the folder of a run, with its config.yaml.")
    return seed


def merit(seed: int | None, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the run of a seed is compared by: accuracy or perplexity, and the share that converged."""
    return {
        "seed": seed,
        **{key: evaluation[key] for key in ("accuracy", "perplexity", "converged") if evaluation.get(key) is not None},
    }


def measured_seed(
    run: Path,
    data: ImageData | TextData,
    *,
    name: str,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Returns the merit of the last checkpoint of a run.

    Args:
        run: its folder, or a checkpoint.
        data: the test set.
        name: of the model that it has to have trained.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.

    Raises:
        WeightsError: if it trained another model, does not say its seed, or its checkpoint is damaged.
        DataError: if the data cannot be read.
    """
    seed, model = _seed(run, name=name), load(find_run(run))
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "progress": progress}
    if isinstance(data, TextData):
        split = TEXT_SPECS[entry(name).dataset].split
        return merit(seed, evaluate_text(model, data, split=split, **options).as_dict())
    return merit(seed, evaluate(model, data, **options).as_dict())


def add_seeds(
    folder: Path, runs: Sequence[Path], *, data: ImageData | TextData, **options: Any
) -> list[dict[str, Any]]:
    """Measures runs with other seeds, writes them into results.json of a release, and returns all that are in it.

    A run with a seed that is there already takes its place. The card is left as it is: `write_card` follows.

    Args:
        folder: of the release.
        runs: their folders, or checkpoints.
        data: the test set.
        **options: of `measured_seed`.

    Raises:
        WeightsError: if a run trained another model, does not say its seed, or has that of the weights themselves.
        DataError: if the data cannot be read.
    """
    name, results = read_config(folder).name, read_results(folder)
    own = results["training"]["seed"]
    known = {seed["seed"]: seed for seed in results.get("seeds", [])[1:]}
    for run in runs:  # all of them before any is measured, which takes minutes
        if _seed(run, name=name) == own:
            raise WeightsError(f"The run in {run} has seed {own}, as the weights in {folder}: name one with another.")
    for run in runs:
        found = measured_seed(run, data, name=name, **options)
        known[found["seed"]] = found
    results["seeds"] = [merit(own, results["evaluation"]), *known.values()]
    write_results(folder, results)
    return results["seeds"]
