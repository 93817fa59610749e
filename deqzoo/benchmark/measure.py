"""Everything that a card tells of a model, measured."""

from typing import Any

import torch
from torch import nn

from deqzoo.benchmark.certify import certify, guarantee, has_certificate
from deqzoo.benchmark.cost import executed_flops, inference_memory, latency
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.benchmark.radii import spectral_radii
from deqzoo.benchmark.sweep import sweep
from deqzoo.data import EmbeddedSample, ImageData, embedded_samples
from deqzoo.models import entry
from deqzoo.nn import equilibria
from deqzoo.tasks import LanguageModel
from deqzoo.version import __version__
from deqzoo.zoo.run_log import RunLog

SAMPLE_FIGURES = ("num_images", "accuracy", "loss", "converged", "evals_mean")
_CURVE_FIGURES = ("max_steps", "rtol", "accuracy", "loss", "converged", "evals_mean", "residual_max")
_NUM_FLOPS, _NUM_RADII, _NUM_TIMED = 100, 32, 50


def measure(
    model: nn.Module,
    data: ImageData,
    *,
    name: str,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Returns the figures of a model on the test images of `data`, as results.json holds them.

    Accuracy and convergence over all of them, also for smaller budgets of the solver; executed operations, spectral
    radii, certificate and latency over the first ones; and accuracy on the sample in the package, by which anybody can
    check the weights without the data.

    Args:
        model: with `.net`, as `deqzoo.load` returns it.
        data: the test set.
        name: of the model, in any spelling.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show bars on a terminal's stderr.

    Raises:
        DataError: if the data cannot be read, or has other labels than the model.
        StructureError: if the images have another size or other channels.
    """
    net: Any = model.net
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "progress": progress}
    evaluation = evaluate(model, data, **options).as_dict()
    images = prepared(data.image_set("test").images[:_NUM_FLOPS].to(device), input_spec(net))
    speed = {
        **latency(model, images[:_NUM_TIMED]),
        **{key: evaluation[key] for key in ("images_per_second", "batch_size", "dtype")},
    }
    points = sweep(model, data, **options) if equilibria(net) else []
    return {
        "name": entry(name).name,
        "library_version": __version__,
        "evaluation": evaluation,
        "sample": sample_figures(model, device=device, batch_size=batch_size),
        "curve": [{key: point[key] for key in _CURVE_FIGURES} for point in points],
        "flops": executed_flops(model, images),
        "speed": speed,
        "memory": inference_memory(model, images[:_NUM_TIMED]),
        "spectral_radius": spectral_radii(model, images[:_NUM_RADII]),
        "guarantee": guarantee(net),
        "certificate": certify(model.cpu(), data, progress=progress).as_dict() if has_certificate(net) else None,
    }


def sample_figures(
    model: nn.Module, *, device: str | torch.device = "cpu", batch_size: int = 512
) -> dict[str, Any] | None:
    """Returns the figures of a model on the sample of its data set in the package, None if there is none."""
    net: Any = model.net
    if isinstance(model, LanguageModel) or (dataset := net.pretrained_cfg["tag"]) not in embedded_samples():
        return None
    found = evaluate(model, EmbeddedSample(dataset), device=device, batch_size=batch_size).as_dict()
    return {key: found[key] for key in SAMPLE_FIGURES}


def training_facts(log: RunLog, *, epochs: int | None = None, steps: int | None = None) -> dict[str, Any]:
    """Returns what is known of a training run; what is not given is read off its log.

    Args:
        log: what it wrote down.
        epochs: that were completed.
        steps: of the optimiser.
    """
    planned = (log.config.get("trainer") or {}).get("max_epochs")
    seed = log.config.get("seed_everything")
    return {
        "epochs": epochs if epochs is not None else _count(log, "epoch"),
        "planned_epochs": planned if isinstance(planned, int) else None,
        "steps": steps if steps is not None else _count(log, "step"),
        "seed": seed if isinstance(seed, int) and not isinstance(seed, bool) else None,
        "hours": max((row["cost/hours"] for row in log.rows if "cost/hours" in row), default=None),
        "peak_gib": max((row["cost/peak_gib"] for row in log.rows if "cost/peak_gib" in row), default=None),
    }


def _count(log: RunLog, column: str) -> int | None:
    counted = [row[column] for row in log.rows if column in row]
    return int(max(counted)) + 1 if counted else None
