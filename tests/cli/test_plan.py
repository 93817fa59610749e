"""`deqzoo plan`: figures that hang together, of steps that were really taken."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deqzoo.benchmark.planning import make_plan
from deqzoo.benchmark.scaling import Cluster
from deqzoo.cli import app, plan  # noqa: F401  which adds the verb
from deqzoo.errors import DataError

RECIPE = Path(__file__).parents[2] / "recipes" / "pcdeq-mnist-linear.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    arguments = ["plan", "-c", str(RECIPE), "--gpus", "16", "--measure-batch", "4", "--factor", "0.1", "--json"]
    figure = tmp_path_factory.mktemp("plan") / "scaling.svg"
    result = CliRunner().invoke(app, [*arguments, "--device-factor", "10", "--curve", str(figure)])
    assert result.exit_code == 0, result.output
    assert "weak scaling" in figure.read_text() or figure.stat().st_size > 1000
    return json.loads(result.stdout)


def test_what_is_measured_is_the_recipe(made):
    own = yaml.safe_load(RECIPE.read_text())
    assert made["batch_size"] == own["data"]["init_args"]["batch_size"]
    assert (made["measured_batch"], made["gpus"]) == (4, 16)
    assert made["gradient_bytes"] == 4 * 70_410
    small, whole = made["budgets"]
    assert small["max_steps"] == round(0.1 * whole["max_steps"])
    assert 0 < small["seconds"] < 10 and 0 < small["backward"] < 1
    assert made["flops_per_step"] > 2 * 70_000 * made["batch_size"]


def test_the_run_follows_from_the_step(made):
    epochs = yaml.safe_load(RECIPE.read_text())["trainer"]["max_epochs"]
    steps = epochs * -(-60_000 // (16 * made["batch_size"]))
    for row in made["budgets"]:
        compute = row["seconds"] * made["batch_size"] / 4 / 10
        assert row["step_seconds"] == pytest.approx(compute + row["communication_seconds"])
        assert row["efficiency"] == pytest.approx(compute / row["step_seconds"])
        assert row["hours"] == pytest.approx(steps * row["step_seconds"] / 3600)
        assert row["gpu_hours"] == pytest.approx(16 * row["hours"])
        # Two AdamW moments of each weight, beside itself, and a gradient.
        assert row["state_bytes"] >= 3 * made["gradient_bytes"]
        assert row["device_bytes"] > row["state_bytes"] + made["gradient_bytes"]


def test_the_assumptions_are_told(made):
    told = " ".join(made["assumptions"])
    for part in ("10 times as fast", "60,000 samples", "300 GB/s", "40 GB/s", "0% of the backward pass"):
        assert part in told


def test_a_data_set_of_unknown_size_has_to_be_told(monkeypatch):
    monkeypatch.setattr("deqzoo.benchmark.planning.TRAINING_SAMPLES", {})
    from deqzoo.cli.plan import _train

    with pytest.raises(DataError, match=r"not known how many training samples mnist has.*--samples"):
        make_plan(
            RECIPE,
            gpus=2,
            cluster=Cluster(),
            measure_batch=2,
            factors=(1.0,),
            device_factor=1.0,
            samples=None,
            train=_train,
        )
