"""Accuracy against compute."""

import csv
from pathlib import Path
from typing import Any

import pytest

from deqzoo import create_model, load
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.sweep import FIGURES, coarser, doubling, sweep, sweep_table, write_sweep
from deqzoo.data import EmbeddedSample
from deqzoo.errors import StructureError
from deqzoo.nn import equilibria
from deqzoo.tasks import ImageClassifier


@pytest.fixture(scope="module")
def model() -> Any:
    return load("pcdeq-mnist-linear")


def test_a_point_is_the_evaluation_at_that_budget(model: Any):
    sample = EmbeddedSample("mnist")
    own = [module.solver for module in equilibria(model.net).values()]
    points = sweep(model, sample, budgets=(3, 1), rtols=(1e-1,))
    assert [module.solver for module in equilibria(model.net).values()] == own
    assert [(p["max_steps"], p["rtol"]) for p in points] == [(1, 1e-4), (3, 1e-4), (own[0].max_steps, 1e-1)]
    wanted = evaluate(load("pcdeq-mnist-linear", max_steps=3), sample).as_dict()
    timed = ("images_per_second",)
    assert {k: v for k, v in points[1].items() if k not in timed} == {k: wanted[k] for k in FIGURES if k not in timed}
    assert points[0]["evals_mean"] == 1 < points[1]["evals_mean"] == 3


def test_budgets_double_until_no_image_needs_more(model: Any):
    points = sweep(model, EmbeddedSample("mnist"))
    budgets = [p["max_steps"] for p in points]
    assert budgets[:3] == [1, 2, 4]
    assert budgets[-1] == 200
    enough = [p for p in points if p["converged"] == 1]
    # The first that suffices, and the model's own: they are the same solves.
    assert [p["max_steps"] for p in enough] == budgets[-2:]
    assert enough[0]["evals_mean"] == enough[1]["evals_mean"]
    assert doubling(6) == [1, 2, 4, 6, 8]
    assert doubling(8) == [1, 2, 4, 8, 16]
    assert coarser(1e-3) == [0.1, 0.01, 1e-3]
    assert coarser(0.3) == [0.3]


def test_solvers_are_given_back_when_something_fails(model: Any):
    own = [module.solver for module in equilibria(model.net).values()]
    with pytest.raises(StructureError, match="20 pixels"):
        sweep(ImageClassifier(model.net), _Wrong("mnist"), budgets=(2,))
    assert [module.solver for module in equilibria(model.net).values()] == own


class _Wrong(EmbeddedSample):
    """A sample whose images have another size than the model's."""

    def image_set(self, split: Any) -> Any:
        images = super().image_set(split)
        return type(images)(images=images.images[..., :20].contiguous(), labels=images.labels)


def test_a_model_without_a_solver_is_refused():
    with pytest.raises(StructureError, match="SmallResNet has no equilibrium"):
        sweep(ImageClassifier(create_model("resnet8-mnist")), EmbeddedSample("mnist"))


def test_files_and_words(tmp_path: Path):
    point: dict[str, Any] = dict.fromkeys(FIGURES, 1.0) | {"max_steps": 2, "rtol": 1e-3, "accuracy": 98.7654}
    points = [point, point | {"max_steps": 4, "evals_mean": 3.0, "accuracy": 99.1}]
    files = write_sweep(points, tmp_path / "new")
    assert [file.name for file in files] == ["sweep.csv", "sweep.svg"]
    with files[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["max_steps"] for row in rows] == ["2", "4"]
    assert float(rows[0]["accuracy"]) == 98.7654
    assert files[1].read_text().lstrip().startswith("<?xml")
    table = sweep_table(points)
    assert table[1][:3] == ("2", "0.001", "98.76 %")
    assert sweep_table([point | {"converged": None}])[1][5] == "fixed budget"
    assert len({len(row) for row in table}) == 1


def test_more_steps_come_closer(model: Any):
    points = sweep(model, EmbeddedSample("mnist"), budgets=(2, 8, 40))
    for key in ("residual_max", "loss"):
        assert points[0][key] > points[1][key]
    assert points[1]["residual_max"] > points[2]["residual_max"]
    assert points[0]["accuracy"] < points[2]["accuracy"]
