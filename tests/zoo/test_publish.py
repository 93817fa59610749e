"""A model goes to the Hub and comes back: what was published is what is loaded, everywhere."""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deqzoo.zoo.manifest import embedded_folder, published

from .hub_client import ask, deqzoo, environment
from .hub_server import HubServer

NAME = "pcdeq-mnist-linear"
FILES = {
    ".eval_results/mnist.yaml",
    "LICENSE",
    "README.md",
    "config.json",
    "metrics.csv",
    "model.safetensors",
    "recipe.yaml",
    "results.json",
}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def said(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `deqzoo publish` printed."""
    home = tmp_path_factory.mktemp("publisher")
    run = deqzoo("publish", NAME, "--repo", "org/linear", env=environment(home, hub.url), cwd=home)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def back(said: str, hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process with an empty cache finds in the repository."""
    script = """
import pickle
import torch
import deqzoo
from deqzoo.benchmark.measure import sample_figures
from deqzoo.benchmark.verify import verify

def never(*args, **options):
    raise AssertionError("something was unpickled")

class Never(pickle.Unpickler):
    load = never

torch.load = pickle.load = pickle.loads = never
pickle.Unpickler = Never
model = deqzoo.load("hf-hub:org/linear@v1")
images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    want = deqzoo.load("pcdeq-mnist-linear")(images)
    found["equal"] = torch.equal(model(images), want)
    import timm
    net = timm.create_model("hf-hub:org/linear", pretrained=True).eval()
    found["timm"] = torch.equal(net(images), want)
    found["timm_cfg"] = [net.pretrained_cfg["label_names"][:2], net.pretrained_cfg["first_conv"]]
found["sample"] = sample_figures(model)
found["verdicts"] = {check.what: check.verdict for check in verify("hf-hub:org/linear")}
"""
    return ask(script, env=environment(tmp_path_factory.mktemp("reader"), hub.url))


def test_the_command_line_shows_what_it_sends_and_how_to_load_it(said: str):
    lines = said.splitlines()
    size = (embedded_folder(NAME) / "model.safetensors").stat().st_size
    assert any(line.split() == ["model.safetensors", f"{size:,}", "bytes"] for line in lines)
    assert "in all" in said
    assert lines[-2].endswith("as release v1")
    assert lines[-1] == '  deqzoo.load("hf-hub:org/linear@v1")'


def test_a_release_is_one_tagged_commit_with_everything(said: str, hub: HubServer):
    repo = hub.repos["org/linear"]
    assert list(repo.tags) == ["v1"]
    assert repo.tags["v1"] == repo.branches["main"]
    assert len(repo.commits) == 2  # the one that a new repository has, and ours
    files = repo.commits[repo.tags["v1"]]
    assert files.keys() >= FILES
    assert files.keys() - FILES <= {"training.svg", "budgets.svg"}  # drawn with matplotlib
    record = published(NAME)
    assert record is not None
    assert hashlib.sha256(files["model.safetensors"]).hexdigest() == record.sha256
    assert b"Apache License" in files["LICENSE"]
    # The LFS way was taken: bytes by PUT, then checked by the server.
    assert record.sha256 in hub.blobs


def test_the_card_and_the_results_on_the_hub_are_those_that_were_measured(said: str, hub: HubServer):
    repo = hub.repos["org/linear"]
    files = repo.commits[repo.tags["v1"]]
    record = published(NAME)
    assert record is not None
    accuracy = record.results["accuracy"]
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == accuracy
    assert 'deqzoo.load("hf-hub:org/linear")' in card
    assert 'timm.create_model("hf-hub:org/linear", pretrained=True)' in card
    (entry,) = yaml.safe_load(files[".eval_results/mnist.yaml"])
    assert (entry["dataset"], entry["value"]) == ({"id": "mnist", "task_id": "accuracy"}, accuracy)
    config = json.loads(files["config.json"])
    assert config["architecture"] == "pcdeq_mnist_linear"
    assert config["deqzoo"]["results"]["accuracy"] == accuracy


def test_it_loads_with_equal_logits_in_deqzoo_and_timm_and_nothing_is_unpickled(back: dict[str, Any]):
    assert back["equal"]
    assert back["timm"]
    assert back["timm_cfg"] == [["0", "1"], "stages.0.entry"]


def test_its_accuracy_is_the_same_and_verification_holds(back: dict[str, Any]):
    measured = json.loads((embedded_folder(NAME) / "results.json").read_text())["sample"]
    assert back["sample"]["accuracy"] == measured["accuracy"]
    assert back["sample"]["loss"] == pytest.approx(measured["loss"], rel=1e-4)
    verdicts = back["verdicts"]
    assert {verdicts.pop("speed")} == {"not checked"}
    assert verdicts.keys() >= {"SHA-256 of model.safetensors", "all files", "loads", "accuracy on the sample"}
    assert set(verdicts.values()) == {"held"}


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_gives_the_same_logits(said: str, hub: HubServer, tmp_path: Path):
    script = """
import torch, deqzoo
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("org/linear").eval()
images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(2))
with torch.no_grad():
    found["equal"] = torch.equal(model(pixel_values=images).logits, deqzoo.load("pcdeq-mnist-linear")(images))
found["labels"] = [model.config.id2label[i] for i in range(2)]
"""
    found = ask(script, env=environment(tmp_path, hub.url))
    assert found == {"equal": True, "labels": ["0", "1"]}
