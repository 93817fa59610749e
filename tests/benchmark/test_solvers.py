"""The comparison of solvers on cells runs, and says what it found."""

import dataclasses
import json
import math

import pytest

from deqzoo.benchmark.cells import cases
from deqzoo.benchmark.pages import SOLVER_PAGE, render
from deqzoo.benchmark.solvers import compare
from deqzoo.benchmark.solvers_table import Row, summary, table, write_rows

ROW = Row(
    case="linear",
    rtol=1e-3,
    library="deqzoo",
    forward="Picard",
    backward="GMRES",
    evals=9,
    backward_evals=7,
    residual=9e-4,
    gradient_error=1e-2,
    forward_ms=1.0,
    total_ms=2.0,
    overhead=0.5,
    backward_overhead=0.5,
    peak_mb=0.5,
)
PEER = dataclasses.replace(ROW, library="torchdeq", forward="broyden", backward="broyden", evals=10, total_ms=5.999)


def test_solvers_are_compared_on_a_cell():
    [case] = [case for case in cases() if case.name == "linear"]
    rows = compare(case, 1e-3, repeats=1)
    own = [row for row in rows if row.library == "deqzoo"]
    assert len(own) > 5
    assert all(row.converged for row in own)
    assert all(math.isfinite(v) and v > 0 for row in own for v in (row.total_ms, row.forward_ms, row.peak_mb))
    assert all(0 <= share <= 1 for row in own for share in (row.overhead, row.backward_overhead))
    assert len(table(rows).splitlines()) == 2 + len(rows)


def test_ratios_are_of_the_fastest_that_are_accurate_enough(tmp_path):
    slow = dataclasses.replace(ROW, forward="Anderson", total_ms=3.0)
    wrong = dataclasses.replace(PEER, forward="anderson", total_ms=0.1, residual=1.0)
    line, last = summary([slow, ROW, wrong, PEER])
    assert "deqzoo Picard/GMRES 2.00 ms" in line
    assert "2.99 times as fast as torchdeq (broyden/broyden 6.00 ms)" in line
    assert "fewest evaluations 16 against 17" in line
    assert "2.99 times as fast in the geometric mean" in last


def test_the_page_is_written_from_what_was_found(tmp_path):
    write_rows([ROW, PEER], tmp_path / "benchmarks" / "solvers.json", repeats=3)
    page = "<!-- generated: cells -->\n<!-- end: cells -->\n<!-- generated: pairs -->\n<!-- end: pairs -->\n"
    page += "<!-- generated: fast paths -->\n<!-- end: fast paths -->\n"
    text = render(SOLVER_PAGE, page, tmp_path)
    assert "Medians of 3 rounds" in text
    assert all(f"- {line}" in text for line in summary([ROW, PEER]))
    found = json.loads((tmp_path / "benchmarks" / "solvers.json").read_text("utf-8"))
    assert [Row(**row) for row in found["rows"]] == [ROW, PEER]


@pytest.mark.parametrize("library", ["loop", "torchdeq"])
def test_nothing_is_said_of_who_did_not_take_part(library: str):
    assert not any(library in line for line in summary([ROW]))
