"""From a recipe to what it takes: measured here, estimated for elsewhere."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from deqzoo.benchmark.machine import machine
from deqzoo.benchmark.plan import TRAINING_SAMPLES, TRAINING_TOKENS, Measure, Run, estimate
from deqzoo.benchmark.scaling import Cluster
from deqzoo.data import ImageData, TextData
from deqzoo.errors import DataError
from deqzoo.models import entry

Train = Callable[[Path, Measure], Any]
"""Trains a recipe with a callback; returns Lightning's command line, which has the trainer and the data."""


def make_plan(
    recipe: Path,
    *,
    gpus: int,
    cluster: Cluster,
    measure_batch: int | None,
    factors: tuple[float, ...],
    device_factor: float,
    samples: int | None,
    train: Train,
) -> dict[str, Any]:
    """Returns the plan for a recipe, in plain values.

    Args:
        recipe: a file.
        gpus: to plan for.
        cluster: that they are in.
        measure_batch: samples per step to measure with; None for the recipe's.
        factors: of the solver's budget, to measure at.
        device_factor: how many times as fast as the device here they are.
        samples: of an epoch; None to know by the data set of the recipe's network.
        train: trains.

    Raises:
        DataError: if nobody says how many training samples there are.
    """
    content = yaml.safe_load(recipe.read_text("utf-8"))
    factors = tuple(sorted({*factors, 1.0}))
    measure = Measure(factors)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of training batches")
        small = Path(folder) / recipe.name
        small.write_text(yaml.safe_dump(_shortened(content, measure.num_steps, measure_batch, folder)))
        done = train(small, measure)
    data: Any = done.datamodule
    measured_batch = data.batch_size
    batch_size = content["data"].get("init_args", {}).get("batch_size", measured_batch)
    epochs = content["trainer"].get("max_epochs") or 1
    run = Run(
        gpus=gpus,
        batch_size=batch_size,
        samples=samples or _samples(content, data),
        epochs=epochs,
        measured_batch=measured_batch,
        device_factor=device_factor,
    )
    budgets = [estimate(cost, run, measure.gradient_bytes, cluster) for cost in measure.costs()]
    flops = measure.flops / measured_batch * batch_size
    return {
        "recipe": recipe.stem,
        "gpus": gpus,
        "batch_size": batch_size,
        "measured_batch": measured_batch,
        **machine(done.model.device if done.model.device.type == "cuda" else torch.device("cpu")),
        "steps": budgets[0]["steps"],
        "gradient_bytes": measure.gradient_bytes,
        "sent_bytes": budgets[0]["sent_bytes"],
        "flops_per_step": flops,
        "bytes_per_gflop": measure.gradient_bytes / (flops / 1e9) if flops else 0.0,
        "budgets": budgets,
        "assumptions": _assumptions(run, cluster),
    }


def _shortened(content: dict[str, Any], steps: int, batch_size: int | None, folder: str) -> dict[str, Any]:
    """Returns a recipe for a few steps on one device, which writes nothing that is kept."""
    trainer = dict(content["trainer"])
    trainer |= {
        "max_steps": steps,
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    callbacks = [dict(callback) for callback in trainer.get("callbacks", [])]
    if not torch.cuda.is_available():
        trainer["sync_batchnorm"] = False
        for callback in callbacks:
            if callback["class_path"].endswith("FastPath"):
                callback["init_args"] = callback.get("init_args", {}) | {"compile": False}  # which takes minutes
    # Their batches are those of other devices, and the learning rate does not matter.
    trainer["callbacks"] = [callback for callback in callbacks if not callback["class_path"].endswith("GlobalBatch")]
    data = dict(content["data"])
    if batch_size is not None:
        data["init_args"] = data.get("init_args", {}) | {"batch_size": batch_size}
    return content | {"trainer": trainer, "data": data, "synthetic": True}


def _samples(content: dict[str, Any], data: object) -> int:
    name = content["model"]["init_args"]["net"]["init_args"]["name"]
    dataset = entry(name).dataset
    if isinstance(data, ImageData) and dataset in TRAINING_SAMPLES:
        return TRAINING_SAMPLES[dataset]
    if isinstance(data, TextData) and dataset in TRAINING_TOKENS:
        return TRAINING_TOKENS[dataset] // data.context
    raise DataError(
        f"It is not known how many training samples {dataset} has, and a run is as long as its epochs: tell with "
        "--samples."
    )


def _assumptions(run: Run, cluster: Cluster) -> list[str]:
    return [
        f"a device there is {run.device_factor:g} times as fast as the one here (--device-factor)",
        f"time and activations are in proportion to the batch: {run.measured_batch} here, {run.batch_size} there",
        f"{run.samples:,} samples an epoch, {run.epochs} epochs; the batch per device stays, so that the learning rate "
        "has to follow the devices (deqzoo.tasks.GlobalBatch)",
        "gradients of 4 bytes per parameter are summed once a step: a ring in each machine of "
        f"{cluster.per_node} at {cluster.within / 1e9:g} GB/s, then across machines at {cluster.between / 1e9:g} GB/s "
        f"per device, {cluster.latency * 1e6:g} µs a message",
        f"{cluster.overlap:.0%} of the backward pass hides communication: the weights of an equilibrium have their "
        "gradient only at its end (--overlap)",
        "every device has as many solver steps: true of budgets; of tolerances, all wait for the slowest",
        "data arrives in time, validation and checkpoints take none",
    ]
