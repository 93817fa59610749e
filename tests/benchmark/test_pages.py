"""Tables and figures of the README come from results files, and from nowhere else."""

import dataclasses
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo import describe, list_models
from deqzoo.benchmark.board import measure_board
from deqzoo.benchmark.board_files import board, write_board
from deqzoo.benchmark.board_speed import Effort
from deqzoo.benchmark.fast_path import Row
from deqzoo.benchmark.pages import MODEL_PAGE, PAGES, README, SOLVER_PAGE, render, write_pages
from deqzoo.benchmark.pairs import Pair
from deqzoo.benchmark.pairs_table import write_pairs
from deqzoo.benchmark.robustness import try_corruptions, write_trials
from deqzoo.benchmark.subjects import open_subject
from deqzoo.data import EmbeddedSample
from deqzoo.errors import DataError
from deqzoo.models import INPUT_SPECS

ROOT = Path(__file__).parents[2]
BLANKS = {
    page: "# A zoo\n\n"
    + "\n\n".join(f"<!-- generated: {name} -->\n<!-- end: {name} -->" for name in parts)
    + "\n\nEnd.\n"
    for page, parts in PAGES.items()
}
SETTINGS: dict[str, Any] = {"batch_size": 4, "rtol": 1e-5, "max_steps": 100, "repeats": 3}
HEADER = {"data": "mnist", "device": "a machine", "num_threads": 1, "precision": "float32", "torch_version": "2"}
PAIR = Pair(
    model="a-model",
    weights="trained",
    solver="Picard",
    adjoint="Unrolled",
    converged=1.0,
    evals=12.0,
    backward_evals=None,
    gradient_error=1e-3,
    forward_ms=1.0,
    total_ms=3.219,
    peak_mb=0.5,
)


every_page = pytest.mark.parametrize("page", PAGES)


@every_page
def test_the_pages_of_the_repository_are_written_from_the_results(page: str):
    text = (ROOT / page).read_text("utf-8")
    assert render(page, text, ROOT) == text, "write it again: python -m deqzoo.benchmark.pages"


@every_page
def test_no_measured_number_is_written_by_hand(page: str):
    text = (ROOT / page).read_text("utf-8")
    for name in PAGES[page]:
        text = re.sub(rf"<!-- generated: {name} -->.*?<!-- end: {name} -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"\d+(?:\.\d+)? ?(?:%|ms\b|MFLOPs|images/s|MiB)|\d{1,3}(?:,\d{3})+", text)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a few results."""
    for page, text in BLANKS.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(text)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mdeq-cifar.yaml").touch()
    sample = EmbeddedSample("mnist")
    subjects = [open_subject(name, INPUT_SPECS["mnist"]) for name in ("pcdeq-mnist-linear", "timm:resnet10t")]
    effort = Effort(batch_sizes=(2,), repeats=1, latencies=1, warmups=0, num_flops=1, train=False)
    entries = measure_board(subjects, sample, effort)
    write_board(board(entries, data="mnist-sample", device=torch.device("cpu"), quick=True), tmp_path / "benchmarks")
    trials = try_corruptions(subjects[:1], sample, kinds=("contrast",))
    write_trials(trials, HEADER | {"library_version": "0"}, tmp_path / "benchmarks", "corruptions-mnist")
    told = HEADER | {"model": "a-model", "weights": "trained", "kind": "cpu", "repeats": 9}
    rows = [asdict(Row(name="eager", inference=10.0, training=5.0, inference_ratio=1.0, training_ratio=1.0))]
    (tmp_path / "benchmarks" / "fast-path-x.json").write_text(json.dumps({"header": told, "rows": rows}))
    return tmp_path


def test_one_command_writes_everything(checkout: Path):
    write_pairs([PAIR], checkout / "benchmarks" / "pairs.json", **SETTINGS)
    drawn = sorted((checkout / "benchmarks").glob("*-*.svg"))
    before = [file.read_bytes() for file in drawn]
    for file in drawn:
        file.unlink()
    assert write_pages(checkout) == [checkout / page for page in PAGES]
    assert [file.read_bytes() for file in drawn] == before
    for dataset in ("cifar10", "mnist"):
        assert (checkout / "benchmarks" / f"compare-{dataset}.svg").is_file()
        assert f"](../benchmarks/compare-{dataset}.svg)" in (checkout / MODEL_PAGE).read_text()
        kept = (ROOT / "benchmarks" / f"compare-{dataset}.csv").read_text()
        assert (checkout / "benchmarks" / f"compare-{dataset}.csv").read_text() == kept
    text = (checkout / README).read_text()
    assert text.startswith("# A zoo\n") and text.endswith("\nEnd.\n")
    assert (
        "| [pcdeq-mnist-linear](model_cards/pcdeq-mnist-linear.md) | 70,410 | 98.74 % (98.5 to 98.95, mnist) |" in text
    )
    assert "| timm:resnet10t | random weights | 4,9" in text
    assert "Means over 1 corruption of 300 images." in text
    assert re.search(r"\| pcdeq-mnist-linear \| 100 %, [\d.]+ evaluations \| ", text)
    assert "of timm:resnet10t" not in text  # whose weights are random
    page = (checkout / SOLVER_PAGE).read_text()
    assert "a-model, trained weights, mnist; a machine, 1 thread, torch 2." in page
    assert "Medians of 9 rounds in which all took turns." in page
    assert "Batches of 4; all solves to 1e-05, in at most 100 steps; medians of 3 rounds" in page
    assert "| eager | 10 | 1.00 | 5 | 1.00 | 0.0e+00 |" in page
    assert "| a-model | Picard, Unrolled | 3.22 |" in text
    assert "| a-model | Picard | Unrolled | 100 % | 12 |" in (checkout / SOLVER_PAGE).read_text()
    known = [found for found in map(describe, list_models(pretrained=True)) if found.dataset == "mnist"]
    digits = [found for found in known if found.results["evals_mean"] is not None]
    best = max(digits, key=lambda model: model.results["accuracy"])
    cheapest = min(digits, key=lambda model: model.results["evals_mean"])
    rows = {line.split(" | ")[1]: line for line in (checkout / MODEL_PAGE).read_text().splitlines() if " | " in line}
    assert f"[{best.name}]({best.name}.md), {round(best.results['accuracy'], 2):g} %" in rows["mnist"]
    assert f" | [{cheapest.name}]({cheapest.name}.md), " in rows["mnist"]
    assert all(f" | [{found.name}]({found.name}.md), " in rows["mnist"] for found in known if found not in digits)
    # A recipe that is there, of a model without weights.
    assert rows["cifar10"].endswith("| [mdeq-cifar](../recipes/mdeq-cifar.yaml) |")
    card = "model_cards/pcdeq-mnist-linear.md"
    assert "98.74 %" in (checkout / card).read_text()
    # Once more changes nothing.
    write_pages(checkout)
    assert (checkout / README).read_text() == text


def test_a_changed_result_changes_the_readme(checkout: Path):
    write_pages(checkout)
    text = (checkout / README).read_text()
    for kind, key in (("benchmark", "entries"), ("corruptions", "trials")):
        (path,) = (checkout / "benchmarks").glob(f"{kind}*.json")
        kept = path.read_text()
        found = json.loads(kept)
        found[key][0]["accuracy"] -= 1
        path.write_text(json.dumps(found))
        assert render(README, text, checkout) != text
        path.write_text(kept)
    write_pairs([PAIR], checkout / "benchmarks" / "pairs.json", **SETTINGS)
    told = [render(page, BLANKS[page], checkout) for page in (README, SOLVER_PAGE)]
    write_pairs([dataclasses.replace(PAIR, total_ms=9.0)], checkout / "benchmarks" / "pairs.json", **SETTINGS)
    again = [render(page, BLANKS[page], checkout) for page in (README, SOLVER_PAGE)]
    assert all(new != old for new, old in zip(again, told, strict=True))


def test_without_results_tables_are_empty(tmp_path: Path):
    assert "<!-- generated: networks -->\n<!-- end: networks -->" in render(README, BLANKS[README], tmp_path)
    assert render(SOLVER_PAGE, BLANKS[SOLVER_PAGE], tmp_path) == BLANKS[SOLVER_PAGE]


def test_places_and_files_that_are_missing_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"generated: networks --> … .* not once"):
        render(README, BLANKS[README].replace("<!-- end: networks -->", ""), tmp_path)
    (tmp_path / "model_cards").mkdir()
    with pytest.raises(DataError, match=r"There is no .*README\.md.*run this in its root"):
        write_pages(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "corruptions.json").write_text("{}")
    with pytest.raises(DataError, match="no header or no trials"):
        render(README, BLANKS[README], tmp_path)
    (tmp_path / "benchmarks" / "corruptions.json").write_text("{")
    with pytest.raises(DataError, match="could not be read"):
        render(README, BLANKS[README], tmp_path)
    (tmp_path / "benchmarks" / "pairs.json").write_text('{"header": {"rtol": 0.1}, "pairs": []}')
    with pytest.raises(DataError, match=r"header of .*pairs\.json has no batch_size, max_steps, repeats\. An earlier"):
        render(SOLVER_PAGE, BLANKS[SOLVER_PAGE], tmp_path)
