"""Corrupted images, and what networks make of them."""

import csv
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo.benchmark.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.robustness import (
    Trial,
    draw_thinking,
    mean_trials_markdown,
    trials_markdown,
    try_corruptions,
    write_trials,
)
from deqzoo.benchmark.subjects import open_subject
from deqzoo.data import EmbeddedSample
from deqzoo.errors import DataError
from deqzoo.models import INPUT_SPECS

KINDS = ("contrast", "jpeg")
NAME = "pcdeq-mnist-linear"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return EmbeddedSample("cifar10").image_set("test").images[:20]


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    subject = open_subject(NAME, INPUT_SPECS["mnist"])
    return try_corruptions([subject], EmbeddedSample("mnist"), kinds=KINDS, severities=(1, 5))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_severities_come_from_a_seed_and_hurt_more_and_more(kind: str, images: torch.Tensor):
    before = images.clone()
    changed = [corrupted(images, kind, severity) for severity in SEVERITIES]
    assert torch.equal(images, before)
    assert all(x.shape == images.shape and x.dtype == torch.uint8 for x in changed)
    assert torch.equal(changed[2], corrupted(images, kind, 3))
    errors = [float((x.double() - images.double()).square().mean()) for x in changed]
    if kind != "pixelate":  # where pixels of the old size and the new happen to meet, less is lost
        assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1]


def test_noise_depends_on_the_seed(images: torch.Tensor):
    for kind in ("gaussian-noise", "shot-noise", "impulse-noise"):
        assert not torch.equal(corrupted(images, kind, 1), corrupted(images, kind, 1, seed=1))


def test_amounts_are_what_they_say():
    grey = torch.full((1, 1, 200, 200), 128, dtype=torch.uint8)
    noise = corrupted(grey, "gaussian-noise", 5).double() / 255
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    shot = corrupted(grey, "shot-noise", 5).double() / 255
    assert float(shot.var()) == pytest.approx(128 / 255 / 50, rel=0.05)
    impulses = corrupted(grey, "impulse-noise", 5)
    assert float((impulses == 0).double().mean()) == pytest.approx(0.035, rel=0.1)
    assert float((impulses == 255).double().mean()) == pytest.approx(0.035, rel=0.1)
    colours = torch.tensor([[51, 0], [102, 0], [51, 0]], dtype=torch.uint8).view(1, 3, 1, 2)
    # Value 0.4 becomes 0.7, hue and saturation stay; black becomes grey.
    brighter = corrupted(colours, "brightness", 5).view(3, 2).int()
    assert (brighter - torch.tensor([[89, 76], [178, 76], [89, 76]])).abs().max() <= 1
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    assert corrupted(black_and_white, "contrast", 2).flatten().tolist() == [64, 191]


def test_blur_grows_with_the_image():
    def spread(size: int) -> float:
        dot = torch.zeros(1, 1, size, size, dtype=torch.uint8)
        dot[0, 0, size // 2, size // 2] = 255
        return 255 / float(corrupted(dot, "blur", 5).max())

    # The peak of a Gaussian of σ pixels is 1 / (2 π σ²).
    assert spread(64) / spread(32) == pytest.approx(4, rel=0.15)


def test_pixels_become_fewer():
    ramp = torch.arange(32, dtype=torch.uint8).mul(8).expand(1, 1, 32, 32)
    assert len(corrupted(ramp, "pixelate", 5)[0, 0, 0].unique()) == 20


def test_unknown_corruptions_are_refused(images: torch.Tensor):
    with pytest.raises(ValueError, match="There are gaussian-noise, shot-noise"):
        corrupted(images, "snow", 1)
    with pytest.raises(ValueError, match="of severity 6"):
        corrupted(images, "jpeg", 6)


def test_a_trial_is_an_evaluation_of_changed_images(trials: list[Trial]):
    assert [(t.corruption, t.severity) for t in trials] == [
        ("none", 0),
        ("contrast", 1),
        ("contrast", 5),
        ("jpeg", 1),
        ("jpeg", 5),
    ]
    model = open_subject(NAME, INPUT_SPECS["mnist"]).model
    wanted = evaluate(model, EmbeddedSample("mnist")).as_dict()
    first = asdict(trials[0])
    assert {key: first[key] for key in first if key in wanted} == {k: wanted[k] for k in first if k in wanted}
    clean, _, worst, *_ = trials
    assert worst.accuracy < clean.accuracy
    assert clean.evals_mean is not None and worst.evals_mean is not None
    assert worst.evals_mean > clean.evals_mean  # it does think longer


def test_random_weights_are_refused():
    subject = open_subject("timm:resnet10t", INPUT_SPECS["mnist"])
    with pytest.raises(DataError, match="timm:resnet10t has random weights"):
        try_corruptions([subject], EmbeddedSample("mnist"))


def test_files_and_words(trials: list[Trial], tmp_path: Path):
    files = write_trials(trials, {"data": "mnist-sample"}, tmp_path / "new", "corruptions")
    assert [file.suffix for file in files] == [".json", ".csv", ".md", ".svg"]
    kept: dict[str, Any] = json.loads(files[0].read_text())
    assert kept["trials"] == [asdict(trial) for trial in trials]
    with files[1].open() as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [trial.accuracy for trial in trials]
    table = trials_markdown(kept["trials"]).splitlines()
    assert table[0] == "| network | corruption | severity 1 | severity 5 |"
    assert len(table) == 5
    assert table[2].startswith(f"| {NAME} | none | 100 %, 10.")
    assert len({line.count("|") for line in table}) == 1


def test_means_are_those_over_corruptions(trials: list[Trial]):
    table = mean_trials_markdown([asdict(trial) for trial in trials]).splitlines()
    assert table[0] == "| network | none | severity 1 | severity 5 |"
    (row,) = table[2:]
    worst = [trial for trial in trials if trial.severity == 5]
    accuracy = sum(trial.accuracy for trial in worst) / 2
    evals = sum(trial.evals_mean or 0 for trial in worst) / 2
    found = re.fullmatch(r".*\| ([\d.]+) %, ([\d.]+) evaluations(?:, [\d.]+ % converged)? \|", row)
    assert found is not None
    assert float(found[1]) == pytest.approx(accuracy, abs=0.011)
    assert float(found[2]) == pytest.approx(evals, abs=0.011)


def test_explicit_networks_do_not_think(trials: list[Trial], tmp_path: Path):
    without = [asdict(trial) | {"evals_mean": None} for trial in trials]
    assert not draw_thinking(without, tmp_path / "x.svg")
    assert "evaluations" not in trials_markdown(without)


@pytest.mark.parametrize(("converged", "told"), [(0.5, ", 50 % converged |"), (None, " evaluations |")])
def test_fixed_budgets_do_not_converge(trials: list[Trial], converged: float | None, told: str):
    (line,) = trials_markdown([asdict(trials[0]) | {"converged": converged}]).splitlines()[2:]
    assert told in line
