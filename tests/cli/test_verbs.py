"""What the verbs print, and how they fail."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from deqzoo import __version__, create_model
from deqzoo.cli import main
from deqzoo.cli.options import samples_at_once
from deqzoo.zoo import save

NAME = "pcdeq-mnist-linear"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save(create_model(NAME), folder, name=NAME)
    return str(folder)


def test_list_and_info(deqzoo: Any):
    code, out, _ = deqzoo("list", "PCDEQ_mnist-lin*")
    assert (code, out.split()[:3]) == (0, [NAME, "98.74", "%"])
    assert [m["name"] for m in json.loads(deqzoo("list", "PCDEQ_mnist-lin*", "--json")[1])["models"]] == [NAME]
    assert all("no weights yet" in line for line in deqzoo("list", "mdeq-imagenet-*")[1].splitlines())
    assert deqzoo("list", "--task", "image_classification")[0] == 0
    assert "text-generation" in deqzoo("list", "--task", "cookery")[2]
    code, out, err = deqzoo("list", "abacus*")
    assert (code, out) == (1, "") and "abacus" in err
    code, out, _ = deqzoo("info", "pcdeq_mnist_linear")
    assert code == 0
    assert "70,410" in out
    assert json.loads(deqzoo("info", NAME, "--json")[1])["num_parameters"] == 70410
    assert deqzoo("--version")[1] == f"deqzoo {__version__}\n"


def test_eval_prints_one_flat_object_and_nothing_else_on_stdout(deqzoo: Any, weights: str):
    code, out, _ = deqzoo("eval", weights, "--json", "--device", "cpu", "--rtol", "1e-3", "--max-steps", "90")
    figures = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert {
        *(
            "name",
            "data",
            "num_images",
            "accuracy",
            "accuracy_low",
            "accuracy_high",
            "loss",
            "calibration_error",
        ),
        *("num_parameters", "converged", "evals_mean", "evals_p95", "residual_max", "images_per_second"),
        *("device", "dtype", "max_steps", "rtol"),
    } <= figures.keys()
    assert (figures["name"], figures["data"], figures["num_images"]) == (weights, "mnist-sample", 300)
    assert (figures["rtol"], figures["max_steps"], figures["num_parameters"]) == (1e-3, 90, 70410)
    assert not any(isinstance(value, dict | list) for value in figures.values())


def test_eval_in_words_says_that_it_is_only_a_sample(deqzoo: Any, weights: str):
    code, out, _ = deqzoo("eval", weights, "--device", "cpu")
    assert code == 0
    assert "on the sample of mnist in the package, 300 of its test images (all of them: --data mnist" in out
    for word in ("accuracy", "95 % interval", "p95", "converged", "images/s", "70,410"):
        assert word in out


def test_a_sweep_is_told_and_written(deqzoo: Any, weights: str, tmp_path: Path):
    options = ("--device", "cpu", "--max-steps", "4", "--output", str(tmp_path))
    code, out, _ = deqzoo("eval", weights, "--sweep", "--sweep-rtol", "0.1", *options)
    assert code == 0
    assert "300 of its test images" in out
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.csv", "sweep.svg"}
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    code, out, _ = deqzoo("eval", weights, "--sweep", "--sweep-rtol", "0.1", "--json", *options)
    found = json.loads(out)
    assert (code, found["name"], found["data"]) == (0, weights, "mnist-sample")
    assert len(found["points"]) == len(rows) - 1 >= 4
    assert [point["max_steps"] for point in found["points"]][:3] == [1, 2, 4]
    assert found["points"][-1]["rtol"] == 0.1


def test_predict_shows_how_each_solve_ended(deqzoo: Any, weights: str, tmp_path: Path):
    path = tmp_path / "digit.png"
    Image.new("RGB", (50, 40), "white").save(path)
    code, out, _ = deqzoo("predict", weights, str(path), "--top-k", "2", "--device", "cpu")
    assert code == 0
    assert out.startswith(f"{path}: ")
    assert "evaluations, reached the tolerance]" in out
    assert out.count(" %") == 2
    code, out, _ = deqzoo("predict", weights, str(path), str(path), "--max-steps", "1", "--json", "--device", "cpu")
    found = json.loads(out)
    assert [p["status"] for p in found["predictions"]] == ["max_steps"] * 2
    assert found["predictions"][0]["evals"] == 1


def test_predict_without_files_takes_the_sample(deqzoo: Any, weights: str):
    code, out, _ = deqzoo("predict", weights, "--count", "4", "--device", "cpu")
    assert code == 0
    assert out.splitlines()[0].startswith("4 images of the sample in the package")
    assert len(out.splitlines()) == 5


def test_certify(deqzoo: Any, weights: str):
    code, out, _ = deqzoo("certify", weights, "--max-images", "20")
    assert code == 0
    assert "rate c, worst image" in out
    assert json.loads(deqzoo("certify", weights, "--max-images", "20", "--json")[1])["num_images"] == 20
    assert deqzoo("certify", weights, "--rtol", "2")[0] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "pcdeq-mnst"], "deqzoo: No model is called 'pcdeq-mnst'. Did you mean 'pcdeq-mnist'"),
        (
            ["info", "nothing-like-it"],
            "deqzoo: No model is called 'nothing-like-it'. deqzoo.list_models() names",
        ),
        (
            ["eval", "WEIGHTS", "--data", "mnits"],
            "deqzoo: 'mnits' is neither a known data set nor a folder. Did you",
        ),
        (["eval", "WEIGHTS", "--data", "mnist", "--root", "void"], "deqzoo: Could not read mnist in "),
        (
            ["eval", "WEIGHTS", "--data", "cifar10"],
            "deqzoo: The labels of cifar10 (10) are not those of the model",
        ),
        (["predict", "WEIGHTS", "no.png"], "deqzoo: There is no "),
        (["eval", "resnet8-mnist", "--max-steps", "5"], "deqzoo: SmallResNet has no equilibrium"),
        (["eval", "WEIGHTS", "--rtol", "inf"], "deqzoo: Picard got rtol=inf"),
        (["export", "void", "out"], "deqzoo: "),
    ],
)
def test_what_goes_wrong_is_one_line_and_code_1(
    deqzoo: Any, weights: str, argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = deqzoo(*(weights if arg == "WEIGHTS" else arg for arg in argv))
    assert (code, out) == (1, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [["evil"], ["eval"], ["eval", NAME, "--rtol", "-1"], ["eval", NAME, "--max-steps", "0"],
     ["eval", NAME, "--batch-size", "many"], ["eval", NAME, "--device", "abacus"], ["list", "--colour"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_code_2(deqzoo: Any, argv: list[str]):
    code, out, err = deqzoo(*argv)
    assert (code, out) == (2, "")
    assert "Usage: deqzoo" in err


def test_debug_shows_where_an_error_came_from():
    with pytest.raises(LookupError):
        main(["--debug", "info", "nothing-like-it"])


def test_training_verbs_get_their_arguments_untouched(deqzoo: Any, monkeypatch: pytest.MonkeyPatch):
    import deqzoo.cli.training as training

    seen: list[list[str]] = []
    monkeypatch.setattr(training, "main", seen.append)
    for verb in ("fit", "validate", "test"):
        assert deqzoo(verb, "-c", "x.yaml", "--trainer.max_epochs", "3", "--help", "--json")[0] == 0
        assert seen.pop() == [verb, "-c", "x.yaml", "--trainer.max_epochs", "3", "--help", "--json"]


def test_the_module_is_the_command():
    run = subprocess.run([sys.executable, "-m", "deqzoo", "list", NAME], capture_output=True, text=True, check=True)
    assert run.stdout.split()[0] == NAME


def test_a_batch_that_suits_the_device_unless_one_is_asked_for():
    assert [samples_at_once(None, device) for device in ("cpu", "cpu:0", "cuda", "cuda:1")] == [128, 128, 512, 512]
    assert samples_at_once(None, "cuda", text=True) == 64
    assert samples_at_once(7, "cpu") == samples_at_once(7, "cpu", text=True) == 7
