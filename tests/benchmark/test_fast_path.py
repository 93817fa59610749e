"""The benchmark of the fast path, on a small network and without a compiler."""

import json
from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from deqzoo import create_model
from deqzoo.benchmark import fast_path
from deqzoo.benchmark.fast_path import Ingredients, compare, contenders, fast_path_markdown

# Raised inside of torch, which looks at every input of a graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

TRACED = {"backend": "aot_eager"}


def test_every_way_gives_the_same_features():
    net = create_model("pcdeq-mnist-linear")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    images = torch.randn(4, 1, 28, 28)
    ways = contenders(torch.device("cpu"), **TRACED)
    assert list(ways) == ["eager", "fixed budget", "channels last", "bf16 autocast", "compiled cell", "all"]
    assert "all, CUDA graphs" in contenders(torch.device("cuda"))
    rows = compare(net, images, ways, repeats=1)
    assert [row.name for row in rows] == list(ways)
    assert not [row.failure for row in rows if row.failure]
    first = rows[0]
    assert (first.inference_ratio, first.training_ratio, first.difference) == (1, 1, 0)
    for row in rows:
        assert row.difference < (0.05 if row.name in ("bf16 autocast", "all") else 1e-4)
        assert row.inference_ratio == pytest.approx(row.inference / first.inference)
        assert row.training_ratio == pytest.approx(row.training / first.training)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_what_fails_is_told_and_the_rest_is_measured():
    ways = {"eager": Ingredients(), "broken": Ingredients(compile={"backend": "no-such-backend"})}
    rows = compare(create_model("pcdeq-mnist-linear"), torch.randn(2, 1, 28, 28), ways, repeats=1)
    assert rows[1].failure is not None
    assert "no-such-backend" in rows[1].failure
    assert "failed" in fast_path_markdown([asdict(row) for row in rows])
    assert rows[0].inference > 0


def test_the_command_prints_a_table(tmp_path):
    import typer

    app = typer.Typer()
    app.command()(fast_path.main)
    found = CliRunner().invoke(
        app,
        ["pcdeq-mnist-linear", "--no-compiled", "--batch-size", "2", "--repeats", "1", "--output", str(tmp_path / "a")],
    )
    assert found.exit_code == 0, found.output
    assert "| eager |" in found.output
    kept = json.loads((tmp_path / "a").read_text())
    assert kept["rows"][-1]["name"] == "all"
    assert "pcdeq-mnist-linear, trained weights, batches of 2; " in found.output
