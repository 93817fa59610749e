"""What runs of one recipe with other seeds reach: one run alone says little of a recipe."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.evaluate_text import evaluate_text
from deqzoo.benchmark.measure import training_facts
from deqzoo.benchmark.same_recipe import first_difference
from deqzoo.data import ImageData, TextData
from deqzoo.errors import WeightsError
from deqzoo.models import entry
from deqzoo.models.text_spec import TEXT_SPECS
from deqzoo.zoo import load
from deqzoo.zoo.checkpoint import find_run, read_checkpoint
from deqzoo.zoo.release import read_results, release_log, write_results
from deqzoo.zoo.weights_config import read_config


def seeds_of(runs: Sequence[Path], *, name: str, settings: Mapping[str, Any], training: Mapping[str, Any]) -> list[int]:
    """Returns the seeds of runs that repeat the training of `name` from other ones.

    Args:
        runs: their folders, or checkpoints.
        name: of the model that they have to have trained.
        settings: of its own run, as its config.yaml holds them.
        training: what is known of its own run: "seed" and "steps".

    Raises:
        WeightsError: if one trained another model or by another recipe, has not taken as many steps, does not say its
            seed, or has that of another one.
    """
    found: list[int] = []
    for run in runs:
        source = read_checkpoint(find_run(run))
        if source.name != name:
            raise WeightsError(f"The run in {run} trained {source.name}, not {name}: name one of the same recipe.")
        seed = training_facts(source.log)["seed"]
        if seed is None:
            raise WeightsError(f"{run} does not say which seed it had: name the folder of a run, with its config.yaml.")
        if other := first_difference(source.log.config, settings):
            where, its, own = other
            raise WeightsError(
                f"The run in {run} is of another recipe: it had {where} {_shown(its)}, the one of the weights "
                f"{_shown(own)}. Seeds are compared under one recipe: name a run of the same."
            )
        if training["steps"] not in (None, source.steps):
            raise WeightsError(
                f"The run in {run} has taken {source.steps} steps, the one of the weights {training['steps']}: resume "
                "it with `deqzoo fit … --ckpt_path last`, or name one that is complete."
            )
        if seed == training["seed"]:
            raise WeightsError(f"The run in {run} has seed {seed}, as the weights themselves: name one with another.")
        if seed in found:
            raise WeightsError(f"The run in {run} has seed {seed}, as {runs[found.index(seed)]} has: name one of them.")
        found.append(seed)
    return found


def _shown(value: Any) -> str:
    return textwrap.shorten(str(value), 60, placeholder="…")


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
    seed: int,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Returns the merit of the last checkpoint of a run.

    Args:
        run: its folder, or a checkpoint.
        data: the test set.
        name: of the model.
        seed: that it had.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.

    Raises:
        WeightsError: if its checkpoint is damaged.
        DataError: if the data cannot be read.
    """
    model = load(find_run(run))
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
        WeightsError: if a run is none that `seeds_of` takes, or a checkpoint is damaged.
        DataError: if the data cannot be read.
    """
    name, results = read_config(folder).name, read_results(folder)
    training = results["training"]
    known = {seed["seed"]: seed for seed in results.get("seeds", [])[1:]}
    # All runs are looked at before any is measured, which takes minutes.
    seeds = seeds_of(runs, name=name, settings=release_log(folder).config, training=training)
    for run, seed in zip(runs, seeds, strict=True):
        known[seed] = measured_seed(run, data, name=name, seed=seed, **options)
    results["seeds"] = [merit(training["seed"], results["evaluation"]), *(known[seed] for seed in sorted(known))]
    write_results(folder, results)
    return results["seeds"]
