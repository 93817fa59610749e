"""Tables and figures of the README come from results files, and from nowhere else."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from deqzoo.benchmark.board import measure_board
from deqzoo.benchmark.board_files import board, write_board
from deqzoo.benchmark.board_speed import Effort
from deqzoo.benchmark.pages import README, SECTIONS, SOLVER_PAGE, render_readme, render_solver_page, write_pages
from deqzoo.benchmark.pairs import Pair
from deqzoo.benchmark.pairs_table import write_pairs
from deqzoo.benchmark.robustness import try_corruptions, write_trials
from deqzoo.benchmark.subjects import open_subject
from deqzoo.data import EmbeddedSample
from deqzoo.errors import DataError
from deqzoo.models import INPUT_SPECS

ROOT = Path(__file__).parents[2]
BLANK = (
    "# A zoo\n\n" + "\n\n".join(f"<!-- generated: {name} -->\n<!-- end: {name} -->" for name in SECTIONS) + "\n\nEnd.\n"
)
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


def test_the_readme_of_the_repository_is_written_from_the_results():
    text = (ROOT / README).read_text("utf-8")
    assert render_readme(text, ROOT) == text, "write it again: python -m deqzoo.benchmark.pages"


def test_the_solver_page_of_the_repository_is_written_from_the_results():
    page, file = render_solver_page(ROOT), ROOT / SOLVER_PAGE
    assert (file.read_text("utf-8") if file.is_file() else None) == page, "write it again"


def test_no_measured_number_is_written_by_hand():
    text = (ROOT / README).read_text("utf-8")
    for name in SECTIONS:
        text = re.sub(rf"<!-- generated: {name} -->.*?<!-- end: {name} -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"\d+(?:\.\d+)? ?(?:%|ms\b|MFLOPs|images/s|MiB)|\d{1,3}(?:,\d{3})+", text)


def test_every_figure_of_the_readme_exists():
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / README).read_text("utf-8")):
        assert (ROOT / link).exists(), link


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a few results."""
    (tmp_path / README).write_text(BLANK)
    (tmp_path / "model_cards").mkdir()
    sample = EmbeddedSample("mnist")
    subjects = [open_subject(name, INPUT_SPECS["mnist"]) for name in ("pcdeq-mnist-linear", "resnet8-mnist")]
    effort = Effort(batch_sizes=(2,), repeats=1, latencies=1, warmups=0, num_flops=1, train=False)
    entries = measure_board(subjects, sample, effort)
    write_board(board(entries, data="mnist-sample", device=torch.device("cpu"), quick=True), tmp_path / "benchmarks")
    trials = try_corruptions(subjects[:1], sample, kinds=("contrast",))
    write_trials(trials, HEADER | {"library_version": "0"}, tmp_path / "benchmarks", "corruptions-mnist")
    return tmp_path


def test_one_command_writes_everything(checkout: Path):
    write_pairs([PAIR], checkout / "benchmarks" / "pairs.json")
    drawn = sorted((checkout / "benchmarks").glob("*.svg"))
    before = [file.read_bytes() for file in drawn]
    for file in drawn:
        file.unlink()
    assert write_pages(checkout) == [checkout / README, checkout / SOLVER_PAGE]
    assert [file.read_bytes() for file in drawn] == before
    text = (checkout / README).read_text()
    assert text.startswith("# A zoo\n") and text.endswith("\nEnd.\n")
    assert (
        "| [pcdeq-mnist-linear](model_cards/pcdeq-mnist-linear.md) | 70,410 | 98.74 % (98.5 to 98.95, mnist) |" in text
    )
    assert "| resnet8-mnist | random weights | 77,754 |" in text
    assert "| pcdeq-mnist-linear | contrast |" in text
    assert "| a-model | Picard, Unrolled | 3.22 |" in text
    assert "| a-model | Picard | Unrolled | 100 % | 12 |" in (checkout / SOLVER_PAGE).read_text()
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
        assert render_readme(text, checkout) != text
        path.write_text(kept)
    write_pairs([PAIR], checkout / "benchmarks" / "pairs.json")
    told = render_readme(text, checkout)
    write_pairs([dataclasses.replace(PAIR, total_ms=9.0)], checkout / "benchmarks" / "pairs.json")
    assert render_readme(text, checkout) != told


def test_without_results_tables_are_empty(tmp_path: Path):
    text = render_readme(BLANK, tmp_path)
    assert "<!-- generated: networks -->\n<!-- end: networks -->" in text
    assert render_solver_page(tmp_path) is None


def test_places_and_files_that_are_missing_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"generated: networks --> … .* not once"):
        render_readme(BLANK.replace("<!-- end: networks -->", ""), tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "corruptions.json").write_text("{}")
    with pytest.raises(DataError, match="no header or no trials"):
        render_readme(BLANK, tmp_path)
    (tmp_path / "benchmarks" / "corruptions.json").write_text("{")
    with pytest.raises(DataError, match="could not be read"):
        render_readme(BLANK, tmp_path)
