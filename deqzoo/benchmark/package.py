"""From a training run to a folder that can be published: weights, figures, log and card."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from deqzoo.benchmark.certify import certify, has_certificate
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.data import ImageData
from deqzoo.models import entry
from deqzoo.zoo import load, save
from deqzoo.zoo.cards import Provenance, render_card
from deqzoo.zoo.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from deqzoo.zoo.curves import draw_curves
from deqzoo.zoo.embed import CARD_FILE
from deqzoo.zoo.figures import HEADLINES
from deqzoo.zoo.run_log import write_rows

_RECIPE, _LOG, _CURVE = "recipe.yaml", "metrics.csv", "training.svg"


def find_run(run: Path) -> Path:
    """Returns the checkpoint of a run's folder, or `run` if it is one."""
    return find_checkpoint(run) if run.is_dir() else run


def package(
    checkpoint: Path,
    destination: Path,
    *,
    data: ImageData,
    name: str | None = None,
    half: bool = False,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> dict[str, Any]:
    """Writes a folder that `deqzoo.load` reads, and returns the figures of the weights in it.

    The weights are saved first, read back and evaluated as they are stored. Beside model.safetensors and
    config.json it holds evaluation.json, certificate.json for models that have one, the run's settings and
    log, its curves if matplotlib is installed, and README.md, the card.

    Args:
        checkpoint: of a task; its run's log is looked for beside it.
        destination: is made if it does not exist; files of these names in it are replaced.
        data: the test set.
        name: of the model, if other than the run's.
        half: whether float32 weights are stored in float16.
        device: where to evaluate.
        batch_size: most images at once.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        WeightsError: if the checkpoint is damaged or does not fit its model.
        DataError: if the data cannot be read.
    """
    source = read_checkpoint(checkpoint)
    name = entry(name or source.name).name
    with tempfile.TemporaryDirectory() as scratch:
        save(load(checkpoint).net, scratch, name=name, half=half)
        model: Any = load(Path(scratch))
    evaluation = evaluate(model, data, device=device, batch_size=batch_size, progress=progress).as_dict()
    proved = certify(model.cpu(), data, progress=progress).as_dict() if has_certificate(model.net) else None
    save(model.net, destination, name=name, half=half, results={key: evaluation[key] for key in HEADLINES})
    _write_json(destination / "evaluation.json", {"name": name, **evaluation})
    if proved is not None:
        _write_json(destination / "certificate.json", {"name": name, **proved})
    card = render_card(
        entry(name),
        evaluation=evaluation,
        certificate=proved,
        provenance=_keep_run(source, destination, half),
    )
    (destination / CARD_FILE).write_text(card, "utf-8")
    return {"name": name, **evaluation}


def _keep_run(source: Checkpoint, destination: Path, half: bool) -> Provenance:
    log = source.log
    if log.config:
        (destination / _RECIPE).write_text(yaml.safe_dump(log.config, sort_keys=False), "utf-8")
    if log.rows:
        write_rows(log.rows, destination / _LOG)
    drawn = draw_curves(log, destination / _CURVE)
    return Provenance(
        epochs=source.epochs,
        steps=source.steps,
        run_config=log.config,
        curve=_CURVE if drawn else None,
        log=_LOG if log.rows else None,
        recipe=_RECIPE if log.config else None,
        half=half,
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
