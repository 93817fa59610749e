"""Every solver with every adjoint."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo.adjoints import Reversible, Unrolled
from deqzoo.benchmark.pairs import Pair, compare, pairs
from deqzoo.benchmark.pairs_table import against_peers, pairs_markdown, pairs_settings, recommendations, write_pairs
from deqzoo.benchmark.peer_solvers import PEER, TorchDEQ, peer_pairs
from deqzoo.benchmark.small_batches import open_net, small_batch
from deqzoo.data import EmbeddedText
from deqzoo.errors import SolverError, StructureError
from deqzoo.models.vocabulary import vocabulary_from
from deqzoo.solvers import Picard
from deqzoo.solvers import Reversible as ReversibleSolver

NAME = "pcdeq-mnist-linear"


@pytest.fixture(scope="module")
def rows() -> list[Pair]:
    return compare(NAME, batch_size=2, repeats=1)


def test_only_pairs_that_go_together():
    found = list(pairs(1e-3, 10))
    assert len({(solver, adjoint) for solver, _, adjoint, _ in found}) == len(found)
    for _, solver, _, adjoint in found:
        assert not isinstance(adjoint, Unrolled) or isinstance(solver, Picard)
        assert not isinstance(adjoint, Reversible) or isinstance(solver, ReversibleSolver)
        assert solver.rtol == 1e-3


def test_exact_adjoints_are_exact_and_cheap_ones_are_not(rows: list[Pair]):
    assert len(rows) == len(list(pairs(1e-4, 100)))
    for row in rows:
        assert row.failure is None and row.converged == 1
        assert row.evals is not None and row.gradient_error is not None and row.peak_mb is not None
        exact = row.adjoint not in ("Phantom", "OneStep")
        assert row.gradient_error < 5e-3 if exact else row.gradient_error > 5e-2
        assert (row.backward_evals is None) == (not row.adjoint.startswith("Implicit"))
    found = {(row.solver, row.adjoint): row for row in rows}
    steps, few = found["Picard", "Unrolled"], found["Picard", "OneStep"]
    assert steps.peak_mb is not None and few.peak_mb is not None and steps.peak_mb > few.peak_mb
    assert found["Anderson", "OneStep"].evals < found["Picard", "OneStep"].evals  # pyright: ignore


def test_tables_say_which_pair_to_take(rows: list[Pair], tmp_path: Path):
    plain: list[dict[str, Any]] = [asdict(row) for row in rows]
    told = recommendations(plain).splitlines()[2]
    good = [row for row in plain if row["gradient_error"] <= 1e-2]
    fastest = min(good, key=lambda row: row["total_ms"])
    assert told.startswith(f"| {NAME} | {fastest['solver']}, {fastest['adjoint']} |")
    assert "OneStep" not in told and "Phantom" not in told
    failed = plain[0] | {"failure": "it solves nothing", "converged": None, "gradient_error": None}
    assert "none converged" in recommendations([failed])
    table = pairs_markdown([*plain, failed]).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert "cannot be used: it solves nothing" in table[-1]
    write_pairs(rows, tmp_path / "new" / "pairs.json", batch_size=2, rtol=1e-4, max_steps=100, repeats=1)
    kept = json.loads((tmp_path / "new" / "pairs.json").read_text())
    assert kept["pairs"] == plain
    assert pairs_settings(kept["header"]).startswith(
        "Batches of 2; all solves to 0.0001, in at most 100 steps; medians"
    )


@pytest.mark.parametrize("part", ["Anderson", "GMRES"], ids=["forward", "backward"])
def test_without_an_exact_gradient_no_error_is_told(part: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(f"deqzoo.benchmark.pairs.{part}", lambda **_: Picard(rtol=1e-10, max_steps=2))
    found = compare(NAME, batch_size=2, repeats=1)
    assert all(row.gradient_error is None and row.total_ms is not None for row in found)
    plain = [asdict(row) for row in found]
    assert "no exact gradient to compare with" in recommendations(plain)
    assert "unknown" in pairs_markdown(plain)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("method", ["fixed_point_iter", "anderson", "broyden"])
def test_solvers_of_torchdeq_solve_the_same_equations(method: Any):
    pytest.importorskip("torchdeq")
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    calls = []

    def f(z: torch.Tensor) -> torch.Tensor:
        calls.append(z)
        return 0.6 * torch.sin(z) + x

    found = TorchDEQ(method=method, rtol=1e-4, max_steps=60).solve(f, torch.zeros_like(x))
    torch.testing.assert_close(found.value, f(found.value), rtol=1e-3, atol=1e-4)
    assert found.stats.converged.all() and found.stats.num_evals == len(calls) - 1
    # The evaluation at which the last sample came within the tolerance is the last of all.
    assert int(found.stats.num_steps.max()) == found.stats.num_evals
    few = TorchDEQ(method=method, rtol=1e-12, max_steps=3).solve(f, torch.zeros_like(x)).stats
    assert not few.converged.any() and (few.num_steps == few.num_evals).all()


def test_ratios_are_against_the_best_peer_that_can_be_trusted(rows: list[Pair]):
    plain: list[dict[str, Any]] = [asdict(row) for row in rows]
    assert against_peers(plain) == [] and PEER not in pairs_markdown(plain)
    own = min((row for row in plain if row["gradient_error"] <= 1e-2), key=lambda row: row["total_ms"])
    peer = own | {"solver": f"{PEER} anderson", "evals": 2 * own["evals"], "total_ms": 4 * own["total_ms"]}
    worse = peer | {"total_ms": own["total_ms"] / 9, "gradient_error": 0.5}
    (told,) = against_peers([*plain, worse, peer])
    assert f"{NAME}: {own['solver']}, {own['adjoint']} is 4 times as fast as {PEER} anderson" in told
    assert "with 0.5 times its evaluations" in told
    (line,) = (
        line
        for line in pairs_markdown([*plain, worse, peer]).splitlines()
        if line.startswith(f"| {NAME} | {own['solver']} | {own['adjoint']} |")
    )
    assert line.endswith("| 0.5 | 0.25 | 1 |")
    assert PEER not in recommendations([*plain, peer])
    assert "no pair of torchdeq converged" in against_peers([*plain, worse])[0]


def test_without_torchdeq_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SolverError, match=r"torchdeq is not installed.*same run: pip install -e '\.\[bench\]'"):
        list(peer_pairs(1e-3, 10))


def test_what_has_no_fixed_point_is_refused():
    for name in ("resnet8-mnist", "node-mnist"):
        with pytest.raises(StructureError, match=f"{name} solves for no fixed point"):
            compare(name)


def test_inputs_are_real_where_they_can_be():
    net, weights = open_net(NAME)
    assert weights == "trained"
    images = small_batch(net, 2)
    assert images.shape == (2, 1, 28, 28) and float(images.min()) == pytest.approx(-0.1307 / 0.3081)
    net, weights = open_net("deq-lm-shakespeare")
    assert weights == "random"
    tokens = small_batch(net, 2)
    assert tokens.shape == (2, 32) and int(tokens.max()) < net.vocab_size
    assert torch.equal(tokens, small_batch(net, 2))
    net, weights = open_net("deq-lm-shakespeare-tiny")
    assert weights == "trained"
    vocabulary = vocabulary_from(net.pretrained_cfg["vocabulary"])
    told = vocabulary.decode(small_batch(net, 2).flatten().tolist())
    assert EmbeddedText("tiny-shakespeare").text("all").startswith(told)
    net.pretrained_cfg = net.pretrained_cfg | {"tag": "ptb"}  # whose text is not in the package
    assert int(small_batch(net, 2).max()) < net.vocab_size
