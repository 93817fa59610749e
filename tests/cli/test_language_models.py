"""`deqzoo generate`, and the other verbs on language models."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deqzoo import create_model, load
from deqzoo.cli.training import main as train
from deqzoo.models import entries
from deqzoo.models.vocabulary import CharVocabulary
from deqzoo.zoo import save

NAME = "deq-lm-shakespeare-tiny"
SHORT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2")
FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted([*FOLDER.glob("deq-lm-*.yaml"), *FOLDER.glob("baselines/transformer-*.yaml")])
ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TEXT = "To be, or not to be: that is the question.\n" * 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    net: Any = create_model(NAME)
    net.pretrained_cfg["vocabulary"] = CharVocabulary(ALPHABET).as_dict()
    save(net, folder, name=NAME)
    return str(folder)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "my.txt").write_text(TEXT)
    return str(tmp_path / "my.txt")


def test_generate_goes_on_with_the_prompt(deqzoo: Any, weights: str):
    argv = ("generate", weights, "To be", "--max-new-tokens", "12", "--device", "cpu", "--seed", "3")
    code, out, err = deqzoo(*argv)
    assert (code, err) == (0, "")
    model: Any = load(weights)
    assert out == "To be" + model.generate("To be", max_new_tokens=12, temperature=0.8, seed=3) + "\n"
    assert deqzoo(*argv)[1] == out
    assert deqzoo(*argv, "--temperature", "0")[1] != out
    assert deqzoo(*argv, "--top-k", "1")[1] == deqzoo(*argv, "--temperature", "0")[1]
    assert deqzoo("generate", weights, "To be", "--max-new-tokens", "0")[1] == "To be\n"


def test_generate_tells_of_solves_that_fail_below_the_text(deqzoo: Any, weights: str):
    argv = ("generate", weights, "To be", "--max-new-tokens", "4", "--device", "cpu", "--max-steps", "1")
    code, out, err = deqzoo(*argv)
    assert code == 0 and out.startswith("To be")
    assert "Warning" not in err
    assert "solves did not reach the tolerance: raise --max-steps or loosen --rtol." in err


def test_eval_scores_a_file_whole_or_a_part_of_it(deqzoo: Any, weights: str, file: str):
    code, out, _ = deqzoo("eval", weights, "--data", file, "--json", "--device", "cpu")
    assert code == 0
    assert out.count("\n") == 1
    figures = json.loads(out)
    assert (figures["name"], figures["data"], figures["split"]) == (weights, "my.txt", "all")
    assert figures["num_tokens"] == len(TEXT) - 1
    assert {"loss", "perplexity", "bits_per_char", "evals_mean", "converged", "tokens_per_second"} <= figures.keys()
    assert not any(isinstance(value, dict | list) for value in figures.values())
    part = json.loads(deqzoo("eval", weights, "--data", file, "--json", "--split", "val", "--device", "cpu")[1])
    assert part["num_tokens"] == len(TEXT) - int(0.9 * len(TEXT)) - 1


def test_eval_in_words_states_the_level(deqzoo: Any, weights: str, file: str):
    code, out, _ = deqzoo("eval", weights, "--data", file, "--device", "cpu", "--stride", "128", "--max-steps", "9")
    assert code == 0
    assert "on my.txt: 515 tokens (char level)" in out
    for word in ("nats per character", "char perplexity", "of which 128 at least", "within 9 steps", "tokens/s"):
        assert word in out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["generate", "WEIGHTS", ""], 1, "deqzoo: The prompt '' has no tokens."),
        (["generate", "WEIGHTS", "naïve €"], 1, "characters that the vocabulary does not: 'ï', '€'."),
        (["generate", "WEIGHTS", "a", "--top-p", "0"], 2, "leaves no token"),
        (["generate", "WEIGHTS", "a", "--temperature", "-1"], 2, "--temperature"),
        (["generate", "pcdeq-mnist-linear", "a"], 2, "is no language model"),
        (["predict", "WEIGHTS"], 2, "This is a language model"),
        (["certify", "WEIGHTS"], 2, "This is a language model"),
        (["eval", "WEIGHTS", "--data", "EMPTY"], 1, "is empty."),
        (["eval", "WEIGHTS", "--data", "BINARY"], 1, "is no text: byte 0 is not UTF-8."),
        (["eval", "WEIGHTS", "--data", "no.txt"], 1, "is neither a known text nor a file."),
        (["eval", "WEIGHTS", "--data", "tiny-shakespeare", "--root", "void"], 1, "is not in"),
        (["eval", "WEIGHTS", "--split", "dev"], 2, "is none of train, val, test, all"),
        (["eval", "WEIGHTS", "--stride", "1000"], 2, "is not from 1 to the context"),
        (["eval", "pcdeq-mnist-linear", "--split", "val"], 2, "Only texts are split"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(deqzoo: Any, weights: str, tmp_path: Path, argv: list[str], code: int, message: str):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    places = {"WEIGHTS": weights, "EMPTY": str(tmp_path / "empty.txt"), "BINARY": str(tmp_path / "binary")}
    found, out, err = deqzoo(*(places.get(arg, arg) for arg in argv))
    assert (found, out) == (code, "")
    assert message in " ".join(err.replace("│", " ").split())


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory but for small texts in place of the data sets."""
    monkeypatch.chdir(tmp_path)
    words = [f"w{i}" for i in range(9_998)]
    (tmp_path / "data" / "shakespeare").mkdir(parents=True)
    (tmp_path / "data" / "shakespeare" / "input.txt").write_text(ALPHABET * 30)
    (tmp_path / "data" / "ptb").mkdir()
    (tmp_path / "data" / "ptb" / "ptb.train.txt").write_text(" ".join(words) + " <unk> \n")
    for part in ("valid", "test"):
        (tmp_path / "data" / "ptb" / f"ptb.{part}.txt").write_text(" ".join(words[:90]) + " \n")
    return tmp_path


def run_training(verb: str, recipe: Path, *options: str) -> None:
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu")
    train([verb, "-c", str(recipe), *quiet, "--trainer.log_every_n_steps=1", "--data.batch_size=2", *options])


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
@pytest.mark.parametrize("name", ["deq-lm-shakespeare-tiny", "deq-lm-ptb", "transformer-shakespeare-tiny-tied"])
def test_a_recipe_runs_and_leaves_a_model(name: str, workplace: Path):
    [recipe] = [path for path in RECIPES if path.stem == name]
    run_training("fit", recipe, *SHORT, "--data.context=16", "--data.eval_batch_size=8")
    folder = Path("runs") / name
    assert {"last.ckpt", "best.ckpt"} <= {path.name for path in folder.iterdir()}
    run_training("test", recipe, "--ckpt_path=last", "--data.context=16", "--data.eval_batch_size=8")
    with (folder / "version_1" / "metrics.csv").open() as file:
        [row] = list(csv.DictReader(file))
    assert float(row["test/loss"]) > 0
    assert f"test/{'word' if 'ptb' in name else 'char'}_perplexity" in row
    model: Any = load(folder)
    assert model.generate("A", max_new_tokens=2, seed=0)


def test_recipes_are_named_like_their_models():
    assert {path.stem for path in RECIPES} == {e.name for e in entries() if e.task == "text-generation" and e.recipe}
    for path in RECIPES:
        content = yaml.safe_load(path.read_text())
        assert content["model"]["init_args"]["net"]["init_args"]["name"] == path.stem
