"""From a run to a published model, and back."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import deqzoo
from deqzoo import create_model
from deqzoo.benchmark.certify import certify
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.benchmark.package import package, remeasure
from deqzoo.benchmark.seeds import add_seeds
from deqzoo.data import EmbeddedSample
from deqzoo.errors import DeqzooError, WeightsError
from deqzoo.tasks import ImageClassifier
from deqzoo.zoo import manifest
from deqzoo.zoo.checkpoint import find_run
from deqzoo.zoo.curves import draw_curves
from deqzoo.zoo.embed import embed
from deqzoo.zoo.figures import at_least
from deqzoo.zoo.run_log import RunLog
from deqzoo.zoo.weights_config import read_config

NAME = "pcdeq-mnist-linear"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a training leaves."""
    version = tmp_path / "run" / "version_0"
    version.mkdir(parents=True)
    make = {"class_path": "deqzoo.create_model", "init_args": {"name": NAME}}
    settings = {"seed_everything": 7, "model": {"net": make, "optimizer": {"lr": 0.1}}, "trainer": {"max_epochs": 3}}
    (version / "config.yaml").write_text(yaml.safe_dump(settings))
    (version / "metrics.csv").write_text(
        "epoch,step,cost/hours,cost/peak_gib,train/loss,train/top1\n"
        "0,49,,,2.0,\n0,99,0.25,1.25,,0.5\n1,149,0.5,1.25,1.0,0.75\n"
    )
    torch.manual_seed(0)
    state = {f"net.{k}": v for k, v in create_model(NAME).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1, "global_step": 938}, tmp_path / "run" / "last.ckpt")
    return tmp_path / "run"


def test_what_the_author_tells_goes_into_the_card(run: Path, tmp_path: Path):
    target = tmp_path / "out"
    (run / "tried.csv").write_text('setting,accuracy\n"Muon, warm",62.4 %\nSGD,53.9 %\n')
    (run / "remarks.txt").write_text("Before, 0.9 at\na _lower_ rate.\n\nSlow.\n")
    package(find_run(run), target, data=EmbeddedSample("mnist"))
    card = (target / "README.md").read_text()
    assert "## What was tried" in card
    assert "| setting | accuracy |\n|---|---|\n| Muon, warm | 62.4 % |\n| SGD | 53.9 % |\n" in card
    assert "## Remarks" in card
    assert "\n- Before, 0.9 at a \\_lower\\_ rate.\n- Slow.\n" in card
    # Another run into the same folder, which nothing was compared for.
    (run / "tried.csv").unlink()
    (run / "remarks.txt").unlink()
    package(find_run(run), target, data=EmbeddedSample("mnist"))
    assert "## What was tried" not in (target / "README.md").read_text()
    assert "## Remarks" not in (target / "README.md").read_text()
    assert not (target / "tried.csv").exists()
    assert not (target / "remarks.txt").exists()


def test_a_damaged_table_of_what_was_tried_is_named_before_anything_is_measured(run: Path, tmp_path: Path):
    (run / "tried.csv").write_text("setting,accuracy\nMuon, warm, 62.4 %\n")
    with pytest.raises(WeightsError, match=r"run/tried\.csv has rows of \[2, 3\] cells"):
        package(find_run(run), tmp_path / "out", data=EmbeddedSample("mnist"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("half", [False, True])
def test_a_packaged_run_loads_and_its_card_tells_what_was_measured(run: Path, tmp_path: Path, half: bool):
    target = tmp_path / "out"
    figures = package(find_run(run), target, data=EmbeddedSample("mnist"), half=half)
    model: Any = deqzoo.load(target)
    source: Any = deqzoo.load(run)
    expected = source.net.fc.weight.half().float() if half else source.net.fc.weight
    assert torch.equal(model.net.fc.weight, expected)
    stored = load_file(target / "model.safetensors")["fc.weight"]
    assert stored.dtype == (torch.float16 if half else torch.float32)

    # The figures are those of what is stored, not of what it was rounded from.
    assert evaluate(model, EmbeddedSample("mnist")).loss == figures["loss"]
    results = json.loads((target / "results.json").read_text())
    evaluation = results["evaluation"]
    assert {"name": NAME, **evaluation} == figures
    assert results["training"] == {
        "epochs": 2, "planned_epochs": 3, "steps": 938, "seed": 7, "hours": 0.5, "peak_gib": 1.25,
    }  # fmt: skip
    assert results["sample"]["accuracy"] == evaluation["accuracy"]  # the same 300 images
    assert results["flops"]["mean"] > 2 * figures["num_parameters"]
    assert results["spectral_radius"]["num_images"] == 32
    assert [point["max_steps"] for point in results["curve"]][:3] == [1, 2, 4]
    config = json.loads((target / "config.json").read_text())
    assert config["deqzoo"]["results"].items() <= evaluation.items()
    assert config["deqzoo"]["weights"]["size"] == (target / "model.safetensors").stat().st_size
    assert "images_per_second" not in config["deqzoo"]["results"]

    card = (target / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert metrics[0] == {
        "type": "accuracy",
        "name": "Accuracy (%)",
        "value": float(at_least(figures["accuracy"])),
    }
    for part in (
        f"{at_least(figures['accuracy'])} % (95 % interval",
        f"{figures['num_parameters']:,} parameters",
        "after 2 epochs (938 steps) of 3 planned, seed 7",
        "It took 0.5 hours and 1.3 GiB at its peak.",
        "| executed operations |",
        "@inproceedings{gabor2024positive",
        f"deqzoo fit -c recipes/{NAME}.yaml",
        "## Certificate",
        "cc-by-sa-3.0",
        "![Training curves](training.svg)",
    ):
        assert part in card
    assert ("float16" in card) == half
    linked = re.findall(r"\]\(([^)]+)\)", card)
    assert sorted(linked) == ["budgets.svg", "metrics.csv", "recipe.yaml", "results.json", "training.svg"]
    assert all((target / name).is_file() for name in linked)
    assert yaml.safe_load((target / "recipe.yaml").read_text())["seed_everything"] == 7
    assert (target / "metrics.csv").read_text().splitlines()[:2] == [
        "epoch,step,cost/hours,cost/peak_gib,train/loss,train/top1",
        "0,49,,,2,",
    ]


def test_an_embedded_model_is_published(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home, cards = tmp_path / "package", tmp_path / "model_cards"
    home.mkdir()
    (home / "weights.json").write_text("{}")
    monkeypatch.setattr(manifest, "_FOLDER", home)
    (run / "tried.csv").write_text("rate,accuracy\n0.1,53.9 %\n")
    (run / "remarks.txt").write_text("One of two runs.\n")
    package(find_run(run), tmp_path / "out", data=EmbeddedSample("mnist"))
    with pytest.raises(WeightsError, match=r"There is no folder .*model_cards.*run this in its root"):
        embed(tmp_path / "out", cards=cards)
    cards.mkdir()
    embed(tmp_path / "out", cards=cards)
    assert deqzoo.list_models(pretrained=True) == [NAME]
    assert deqzoo.load(NAME).net.pretrained_cfg["license"] == "apache-2.0"  # pyright: ignore
    card = (cards / f"{NAME}.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", card)
    assert f"{NAME}/training.svg" in linked
    assert "| 0.1 | 53.9 % |" in card
    assert all((cards / name).is_file() for name in linked)
    assert sorted(path.name for path in (home / "weights" / NAME).iterdir()) == [
        "config.json",
        "metrics.csv",
        "model.safetensors",
        "recipe.yaml",
        "remarks.txt",
        "results.json",
        "tried.csv",
    ]
    for name, told in (("tried.csv", "What was tried"), ("remarks.txt", "One of two runs.")):
        assert told in (cards / f"{NAME}.md").read_text()
        (tmp_path / "out" / name).unlink()
        embed(tmp_path / "out", cards=cards)
        assert told not in (cards / f"{NAME}.md").read_text()


def with_seed(run: Path, seed: int) -> Path:
    """Returns a copy of a run, as if it had had another seed."""
    other = run.with_name(f"seed-{seed}")
    shutil.copytree(run, other)
    config = other / "version_0/config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 7", f"seed_everything: {seed}"))
    return other


def test_other_seeds_go_into_the_card(run: Path, tmp_path: Path):
    package(find_run(run), tmp_path / "out", data=EmbeddedSample("mnist"), other_seeds=[with_seed(run, 8)])
    card = (tmp_path / "out/README.md").read_text()
    assert re.search(r"\| accuracy, 2 seeds \| (\S+) ± 0 %: \1 \(seed 7\), \1 \(seed 8\) \|", card)
    assert re.search(r"\| converged, 2 seeds \| (\S+) % \(seed 7\), \1 % \(seed 8\) \|", card)
    assert "One training run." not in card


def test_seeds_are_added_to_a_release(run: Path, tmp_path: Path):
    target, data = tmp_path / "out", EmbeddedSample("mnist")
    package(find_run(run), target, data=data, other_seeds=[with_seed(run, 8)])
    before = json.loads((target / "results.json").read_text())
    state = torch.load(run / "last.ckpt", weights_only=True)
    worse = with_seed(run, 9)
    state["state_dict"]["net.fc.bias"][3] += 100.0  # it says 3 to everything
    torch.save(state, worse / "last.ckpt")
    known = add_seeds(target, [worse], data=data)  # in the order of the seeds, however they came
    assert [seed["seed"] for seed in known] == [7, 8, 9]
    assert known[2]["accuracy"] == 10  # the sample has as many of each
    assert known[1]["accuracy"] != 10
    # A seed that is there takes its old place; all else stays as it was.
    assert add_seeds(target, [with_seed(run, 10), with_seed(run, 6), worse], data=data)[3] == known[2]
    after = json.loads((target / "results.json").read_text())
    assert [seed["seed"] for seed in after["seeds"]] == [7, 6, 8, 9, 10]
    assert {**after, "seeds": before["seeds"]} == before


def test_seeds_of_other_runs_are_refused_before_any_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target, data = tmp_path / "out", EmbeddedSample("mnist")
    package(find_run(run), target, data=data)
    before = (target / "results.json").read_bytes()
    stranger, other_rate, stopped = with_seed(run, 9), with_seed(run, 10), with_seed(run, 11)
    for folder, old, new in ((stranger, NAME, "pcdeq-mnist"), (other_rate, "lr: 0.1", "lr: 0.2")):
        config = folder / "version_0/config.yaml"
        config.write_text(config.read_text().replace(old, new))
    state = torch.load(run / "last.ckpt", weights_only=True)
    torch.save({**state, "global_step": 469}, stopped / "last.ckpt")
    monkeypatch.setattr("deqzoo.benchmark.seeds.evaluate", lambda *_, **__: pytest.fail("measured"))
    good = with_seed(run, 8)
    shutil.copytree(good, tmp_path / "twin")
    for other, said in (
        (run, "has seed 7, as the weights"),
        (stranger, f"trained pcdeq-mnist, not {NAME}"),
        (other_rate, r"of another recipe: it had model\.optimizer\.lr 0\.2, the one of the weights 0\.1\."),
        (stopped, "has taken 469 steps, the one of the weights 938: resume it"),
        (tmp_path / "twin", "has seed 8, as .*seed-8 has"),
    ):
        with pytest.raises(WeightsError, match=said):
            add_seeds(target, [good, other], data=data)
    assert (target / "results.json").read_bytes() == before


def test_what_is_measured_again_replaces_what_was(run: Path, tmp_path: Path):
    target = tmp_path / "out"
    package(find_run(run), target, data=EmbeddedSample("mnist"))
    before = json.loads((target / "results.json").read_text())
    broken = {**before, "evaluation": {**before["evaluation"], "accuracy": 12.0}}
    (target / "results.json").write_text(json.dumps(broken))
    config = json.loads((target / "config.json").read_text())
    made_with = config["deqzoo"]["solver"]
    config["deqzoo"]["solver"] = ["Picard()"]  # of an earlier version
    (target / "config.json").write_text(json.dumps(config))
    figures = remeasure(target, data=EmbeddedSample("mnist"))
    assert json.loads((target / "config.json").read_text())["deqzoo"]["solver"] == made_with
    after = json.loads((target / "results.json").read_text())
    assert figures["accuracy"] == after["evaluation"]["accuracy"] == before["evaluation"]["accuracy"]
    assert after["training"] == before["training"]
    assert read_config(target).results["accuracy"] == figures["accuracy"]
    deqzoo.load(target)


def test_the_same_run_draws_the_same_curves(tmp_path: Path):
    rows = [{"step": float(i), "train/loss": 1 / (i + 1), "train/top1": i / 10} for i in range(9)]
    log = RunLog(config={}, rows=rows)
    assert draw_curves(log, tmp_path / "a.svg")
    assert draw_curves(log, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert not draw_curves(RunLog(config={}, rows=[]), tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists()


def test_a_certificate_bounds_what_iteration_does():
    torch.manual_seed(0)
    model = ImageClassifier(create_model(NAME)).eval()
    found = certify(model, EmbeddedSample("mnist"), max_images=120)
    assert (found.num_images, found.data) == (120, "mnist")
    assert found.unique and not found.estimated
    assert found.at_least["smallest entry of all W"] >= 0
    assert len(found.rate_max) == 1
    assert 0 < found.rate_mean[0] <= found.rate_max[0] < 1
    assert found.steps_p95[0] is not None
    assert found.steps_max[0] is not None
    assert 1 <= found.steps_p95[0] <= found.steps_max[0]
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["rate_max"] == found.rate_max


def test_models_without_a_certificate_say_so():
    with pytest.raises(DeqzooError, match=r"Linear has no certificate. Convergence is proved where"):
        certify(ImageClassifier(torch.nn.Linear(2, 2)), EmbeddedSample("mnist"))
