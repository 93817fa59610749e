"""`deqzoo compare`."""

import json
from pathlib import Path
from typing import Any

import pytest

NAME = "pcdeq-mnist-linear"


def test_a_data_set_is_compared_by_what_was_published(deqzoo: Any, tmp_path: Path):
    code, out, _ = deqzoo("compare", "mnist", "--output", str(tmp_path))
    assert code == 0
    assert "models on mnist (published figures)" in out
    assert "69,746" in out and "70,410" in out and "99.58 %" in out
    assert {path.name for path in tmp_path.iterdir()} == {"compare-mnist.csv", "compare-mnist.svg"}


def test_measured_here_it_is_one_object_on_stdout(deqzoo: Any, tmp_path: Path):
    options = ("--measure", "--batch-size", "2", "--device", "cpu", "--output", str(tmp_path), "--json")
    code, out, _ = deqzoo("compare", NAME, *options)
    found = json.loads(out)
    assert (code, out.count("\n"), found["dataset"]) == (0, 1, "mnist")
    (row,) = found["models"]
    assert (row["name"], row["num_images"], row["batch_size"]) == (NAME, 10_000, 2)
    assert row["images_per_second_low"] > 0


def test_nothing_to_compare_is_one_line(deqzoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = deqzoo("compare", "mdeq-imagenet-*")
    assert (code, out) == (1, "")
    assert err.startswith("deqzoo: 'mdeq-imagenet-*' leaves nothing to compare") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
