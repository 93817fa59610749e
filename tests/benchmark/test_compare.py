"""Models side by side: what was published, what is measured, and what does not compare."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deqzoo
from deqzoo.benchmark.compare import Row, chosen_models, compare
from deqzoo.benchmark.compare_files import comparison_table, machines, write_comparison
from deqzoo.data import EmbeddedSample
from deqzoo.errors import UnknownModelError
from deqzoo.models import entry
from deqzoo.zoo import manifest
from deqzoo.zoo.manifest import Published, embedded_folder, published, register_weights

SMALL = "pcdeq-mnist-linear"


def test_a_data_set_means_all_its_models_with_weights():
    wanted = [name for name in deqzoo.list_models(pretrained=True) if entry(name).dataset == "mnist"]
    assert chosen_models("MNIST") == wanted
    assert len(wanted) >= 2
    assert chosen_models("pcdeq_mnist-lin*") == [SMALL]
    assert chosen_models(SMALL) == [SMALL]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "mdeq-imagenet-*",
            r"'mdeq-imagenet-\*' leaves nothing.*mdeq-imagenet-large.*name a data set that has some \(.*mnist",
        ),
        ("imagenet-1k", "no model for it has published weights"),
        ("mnits", "no data set and no model has that name"),
    ],
)
def test_what_cannot_be_compared_is_named(wanted: str, message: str):
    with pytest.raises(UnknownModelError, match=message):
        chosen_models(wanted)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo whose weights are all on the Hub."""
    results = published(SMALL).results  # pyright: ignore
    monkeypatch.setattr(manifest, "_FOLDER", tmp_path)
    (tmp_path / "weights.json").write_text("{}")
    for name in (SMALL, "pcdeq-cifar"):
        register_weights(name, Published(source="hub", sha256="0" * 64, size=1, repo="a/b", results=results))


@pytest.mark.usefixtures("hub")
def test_models_of_several_data_sets_do_not_compare():
    with pytest.raises(UnknownModelError, match=r"'pcdeq-\*' means models for cifar10, mnist.*narrower pattern"):
        chosen_models("pcdeq-*")


def test_published_figures_are_those_of_the_release():
    rows = compare(chosen_models("mnist"))
    assert [row.accuracy for row in rows] == sorted((row.accuracy for row in rows), reverse=True)
    for row in rows:
        results = json.loads((embedded_folder(row.name) / "results.json").read_text())
        for key in ("num_parameters", "accuracy", "accuracy_low", "accuracy_high", "evals_mean", "converged"):
            assert getattr(row, key) == results["evaluation"][key]
        assert row.images_per_second is None  # those of the releases are of other threads and batches


def test_published_speeds_are_told_where_they_compare():
    (row,) = compare(["pcdeq-mnist"])
    results = json.loads((embedded_folder("pcdeq-mnist") / "results.json").read_text())
    assert row.images_per_second == results["speed"]["images_per_second"]
    assert row.images_per_second_low is None
    assert "published figures" in machines([row])


@pytest.mark.usefixtures("hub")
def test_a_release_on_the_hub_needs_no_network():
    (row,) = compare(chosen_models("mnist"))
    assert (row.name, row.accuracy, row.images_per_second) == (SMALL, 98.74, None)
    assert comparison_table([row])[0][-1] == "converged"  # speed and memory are not known
    assert "not measured" in comparison_table([row, replace(row, images_per_second=1.0)])[1]
    assert machines([row]).startswith("No speeds and memory of the same circumstances are published")


def test_measured_figures_replace_the_published_ones():
    sample = EmbeddedSample("mnist")
    (row,) = compare([SMALL], data=sample, speed_on=sample, batch_size=4)
    assert (row.num_images, row.accuracy) == (300, 100.0)
    assert row.images_per_second_low <= row.images_per_second <= row.images_per_second_high  # pyright: ignore
    assert (row.batch_size, row.num_threads) == (4, torch.get_num_threads())
    # Never less than the images and the vectors of 80 components that come of them.
    assert row.memory_mb is not None
    assert 80 * 4 / 2**20 < row.memory_mb < 1
    assert "all models in turns" in machines([row])


def test_comparisons_are_written_the_same_each_time(tmp_path: Path):
    rows = [*compare(chosen_models("mnist")), explicit()]
    files = write_comparison(rows, tmp_path / "a", name="mnist")
    again = write_comparison(rows, tmp_path / "b", name="mnist")
    assert [path.name for path in files] == ["compare-mnist.csv", "compare-mnist.svg"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(files, again, strict=True))
    with files[0].open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [line["name"] for line in read] == [row.name for row in rows]
    assert float(read[0]["accuracy"]) == rows[0].accuracy
    assert read[-1]["converged"] == ""
    assert comparison_table(rows)[-1][4:6] == ("none", "none")
    assert comparison_table([replace(rows[0], evals_mean=4.0, converged=None)])[1][4:6] == ("4", "fixed budget")


def explicit() -> Row:
    return Row(
        name="net", dataset="mnist", num_parameters=77_000, num_images=10_000, accuracy=100.0, accuracy_low=99.9,
        accuracy_high=100.0,
    )  # fmt: skip
