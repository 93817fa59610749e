"""A zoo of one model with published weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo import create_model
from deqzoo.zoo import manifest, save
from deqzoo.zoo.manifest import Published, register_weights

from . import probes as probes  # registers their names

RESULTS = {
    "data": "mnist",
    "num_images": 10000,
    "accuracy": 99.547,
    "accuracy_low": 99.395,
    "accuracy_high": 99.662,
    "loss": 0.01234,
    "calibration_error": 0.002,
    "num_parameters": 324,
    "converged": 1.0,
    "evals_mean": 12.34,
    "evals_p95": 15.0,
    "evals_max": 20,
    "residual_max": 9.81e-5,
    "solver": "Picard",
    "max_steps": 200,
    "rtol": 1e-4,
}


@pytest.fixture
def net() -> Any:
    """The probe with random weights, the same in every test."""
    torch.manual_seed(3)
    return create_model("zoo-probe")


@pytest.fixture
def folder(net: Any, tmp_path: Path) -> Path:
    """Weights in a folder, as `save` writes it."""
    save(net, tmp_path / "saved", name="zoo-probe", results=RESULTS)
    return tmp_path / "saved"


@pytest.fixture
def package(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The part of the package that holds weights, with those of the probe embedded."""
    home = tmp_path / "package"
    save(net, home / "weights" / "zoo-probe", name="zoo-probe", results=RESULTS)
    (home / "weights.json").write_text("{}")
    monkeypatch.setattr(manifest, "_FOLDER", home)
    weights = json.loads((home / "weights/zoo-probe/config.json").read_text())["deqzoo"]["weights"]
    register_weights("zoo-probe", Published(source="embedded", results=RESULTS, **weights))
    return home
