"""Figures of language models, and their releases."""

import json
import math
import re
from pathlib import Path
from typing import Any, Unpack

import pytest
import torch
import yaml

import deqzoo
from deqzoo.benchmark.evaluate_text import evaluate_text, loss_over_budgets
from deqzoo.benchmark.package import package
from deqzoo.data import TextData, TinyShakespeare
from deqzoo.errors import VocabularyError
from deqzoo.models import TextRuntime, register
from deqzoo.models.deq_transformer import DEQTransformer
from deqzoo.models.deq_transformer_parts import DEQTransformerConfig
from deqzoo.models.vocabulary import CharVocabulary
from deqzoo.solvers import Picard
from deqzoo.tasks import LanguageModel
from deqzoo.zoo import manifest
from deqzoo.zoo.checkpoint import find_run
from deqzoo.zoo.embed import embed

NAME = "packaged-text-probe"
TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 8
CHARS = CharVocabulary.of([TEXT])
# Random cells of sixteen features may be slow to converge, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")


@register(task="text-generation", dataset="tiny-shakespeare")
def packaged_text_probe(**runtime: Unpack[TextRuntime]) -> DEQTransformer:
    """A probe for releases."""
    config = DEQTransformerConfig(width=16, heads=2, hidden=16, context=16)
    return DEQTransformer(config, **{"vocab_size": 65, **runtime})


@pytest.fixture
def data(tmp_path: Path) -> TextData:
    (tmp_path / "text.txt").write_text(TEXT)
    return TextData(tmp_path / "text.txt")


def make_model(**sizes: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = DEQTransformerConfig(**{"width": 16, "heads": 2, "hidden": 16, "context": 16, **sizes})
    model = LanguageModel(DEQTransformer(config, vocab_size=len(CHARS), solver=Picard(rtol=1e-4, max_steps=60)))
    model.vocabulary = CHARS
    return model.eval()


def test_a_whole_text_is_scored_to_the_last_token(data: TextData):
    model = make_model()
    found = evaluate_text(model, data, split="all", batch_size=5)
    tokens = torch.tensor(CHARS.encode(TEXT))
    nats = []
    with torch.no_grad():
        for start in range(0, len(TEXT) - 1, 16):
            # The last window reaches back, and scores what is left.
            begin = min(start, len(TEXT) - 17)
            losses, _ = model.net.score(tokens[None, begin : begin + 16], tokens[None, begin + 1 : begin + 17])
            nats += losses[0, start - begin :].tolist()
    assert len(nats) == found.num_tokens == found.num_chars == len(TEXT) - 1
    assert found.loss == pytest.approx(math.fsum(nats) / len(nats), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.bits_per_char == pytest.approx(found.loss / math.log(2))
    assert (found.level, found.split, found.data, found.context, found.stride) == ("char", "all", "text.txt", 16, 16)
    assert found.num_windows == math.ceil((len(TEXT) - 1) / 16)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()


def test_figures_do_not_depend_on_batches(data: TextData):
    model = make_model()
    one, many = (evaluate_text(model, data, split="all", batch_size=n) for n in (1, 64))
    assert one.loss == pytest.approx(many.loss, rel=1e-5)
    assert (one.num_tokens, one.evals_max) == (many.num_tokens, many.evals_max)


def test_overlap_costs_evaluations_per_token(data: TextData):
    model = make_model()
    plain, overlapping = (evaluate_text(model, data, split="all", stride=s) for s in (None, 4))
    assert plain.num_tokens == overlapping.num_tokens
    assert plain.loss != overlapping.loss
    assert plain.evals_mean is not None
    assert overlapping.evals_mean == pytest.approx(4 * plain.evals_mean, rel=0.1)


def test_memory_is_carried_through_the_text(data: TextData):
    model = make_model(context=8, memory=8)
    found = evaluate_text(model, data, split="all", batch_size=1)
    tokens, memory, nats = torch.tensor(CHARS.encode(TEXT))[None], None, []
    with torch.no_grad():
        for start in range(0, len(TEXT) - 1, 8):
            end = min(start + 8, len(TEXT) - 1)
            losses, memory = model.net.score(tokens[:, start:end], tokens[:, start + 1 : end + 1], memory)
            nats += losses[0].tolist()
    assert found.loss == pytest.approx(math.fsum(nats) / len(nats), rel=1e-5)
    assert (found.memory, found.num_tokens) == (8, len(TEXT) - 1)
    with pytest.raises(ValueError, match=r"stride = 4 for a network with memory"):
        evaluate_text(model, data, split="all", stride=4)


def test_positions_are_judged_by_themselves(data: TextData):
    model = make_model()
    model.net.equilibrium.solver = Picard(rtol=1e-4, max_steps=2)  # pyright: ignore
    found = evaluate_text(model, data, split="all")
    assert found.num_max_steps == found.num_windows
    assert found.converged is not None
    assert found.converged < 0.5
    assert found.evals_max == 2
    model.net.equilibrium.solver = Picard(rtol=1e-5, max_steps=500)  # pyright: ignore
    found = evaluate_text(model, data, split="all")
    assert found.num_max_steps == 0
    assert found.converged is not None
    assert found.converged > 0.5
    model.net.equilibrium.solver = Picard(rtol=0, max_steps=2)  # pyright: ignore
    found = evaluate_text(model, data, split="all")
    assert (found.converged, found.evals_max, found.num_max_steps) == (None, 2, found.num_windows)


def test_the_loss_settles_with_the_budget(data: TextData):
    model = make_model()
    solver = model.net.equilibrium.solver  # pyright: ignore
    points = loss_over_budgets(model, data, split="val", evals=3)
    assert [p["evals"] for p in points] == [3, 6, 12]
    residuals: Any = [p["residual_max"] for p in points]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[2] < residuals[0]
    assert model.net.equilibrium.solver is solver  # pyright: ignore


def test_a_text_in_other_tokens_is_refused(tmp_path: Path):
    (tmp_path / "other.txt").write_text(TEXT.replace("g", "z"))
    with pytest.raises(VocabularyError, match=r"other.txt is not that of the model: token 8 is 'h' against 'g'"):
        evaluate_text(make_model(), TextData(tmp_path / "other.txt"), split="all")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a training leaves, and a short text in place of the data set."""
    version = tmp_path / "run" / "version_0"
    version.mkdir(parents=True)
    make = {"class_path": "deqzoo.create_model", "init_args": {"name": NAME}}
    settings = {"seed_everything": 7, "model": {"net": make}, "trainer": {"max_epochs": 3}}
    (version / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = "0,49,2.0,,\n0,99,,1.9,2.7\n1,149,1.0,,\n1,199,,1.8,2.6\n"
    (version / "metrics.csv").write_text(f"epoch,step,train/loss,val/loss,val/bits_per_char\n{rows}")
    alphabet = "".join(chr(i) for i in (10, *range(32, 96)))
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "input.txt").write_text(alphabet * 40)
    torch.manual_seed(0)
    state = {f"net.{k}": v for k, v in deqzoo.create_model(NAME).state_dict().items()}
    content = {"state_dict": state, "epoch": 1, "global_step": 938, "vocabulary": CharVocabulary(alphabet).as_dict()}
    torch.save(content, tmp_path / "run" / "last.ckpt")
    return tmp_path / "run"


def test_a_packaged_language_model_loads_and_its_card_tells_what_was_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target, text = tmp_path / "out", TinyShakespeare(tmp_path)
    figures = package(find_run(run), target, data=text)
    model: Any = deqzoo.load(target)
    assert evaluate_text(model, text, split="val").loss == pytest.approx(figures["loss"], rel=1e-6)
    results = json.loads((target / "results.json").read_text())
    assert len(results["budgets"]) == 3
    written = results["written"]
    assert written["text"] == model.generate(
        written["prompt"], max_new_tokens=written["max_new_tokens"], temperature=0.8, seed=0
    )
    config = json.loads((target / "config.json").read_text())
    assert config["deqzoo"]["results"]["bits_per_char"] == figures["bits_per_char"]
    assert config["deqzoo"]["results"]["level"] == "char"

    card = (target / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "text-generation"
    [result] = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "val"
    assert "Perplexity (char level)" in [m["name"] for m in result["metrics"]]
    for part in (
        "every one of the 259 tokens (level: char) that follow another in the part 'val' of tiny-shakespeare",
        "nats per character",
        "## Loss and compute",
        "## A text",
        written["text"].strip()[:20],
        "deqzoo generate packaged-text-probe",
        "public domain",
        "seed 7",
        "has no test part",
    ):
        assert part in card, part
    assert "image" not in card
    assert all((target / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", card))

    home, cards = tmp_path / "package", tmp_path / "model_cards"
    home.mkdir()
    cards.mkdir()
    (home / "weights.json").write_text("{}")
    monkeypatch.setattr(manifest, "_FOLDER", home)
    embed(target, cards=cards)
    assert deqzoo.list_models(pretrained=True) == [NAME]
    told = str(deqzoo.describe(NAME))
    assert "char perplexity" in told
    assert "nats per character" in told
    assert (cards / f"{NAME}.md").is_file()
