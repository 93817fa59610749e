"""What the solver benchmark found, in words and tables."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from deqzoo.benchmark.board_files import header
from deqzoo.zoo.rounding import at_least


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one contender took for one case and tolerance.

    Attributes:
        evals: evaluations of f in the forward pass, those that build graphs included.
        backward_evals: vector-Jacobian products of the backward solve.
        residual: the true relative residual of what it returned, the worst of the batch.
        gradient_error: of the injection's gradient, relative to a solve in float64.
        forward_ms: median time of the forward pass, without a graph.
        total_ms: median time of forward and backward pass.
        overhead: median share of the forward pass that is not spent inside of f.
        backward_overhead: median share of the backward pass that is not spent inside of products with f's Jacobian.
        peak_mb: peak memory of forward and backward pass.

    """

    case: str
    rtol: float
    library: str
    forward: str
    backward: str
    evals: int
    backward_evals: int
    residual: float
    gradient_error: float
    forward_ms: float
    total_ms: float
    overhead: float
    backward_overhead: float
    peak_mb: float

    @property
    def converged(self) -> bool:
        """Whether value and gradient are as accurate as was asked for."""
        return self.residual <= self.rtol and self.gradient_error <= 100 * self.rtol


def summary(rows: Sequence[Row]) -> list[str]:
    """Returns the ratios that matter, in words: a line for each case and tolerance, and one for all."""
    lines, ratios = [], []
    for case, rtol in dict.fromkeys((row.case, row.rtol) for row in rows):
        here = [r for r in rows if (r.case, r.rtol) == (case, rtol) and r.converged]
        mine = min((r for r in here if r.library == "deqzoo"), key=lambda r: r.total_ms)
        peers = [r for r in here if r.library == "torchdeq"]
        loop = next((r for r in here if r.library == "loop"), None)
        line = f"{case}, rtol {rtol:.0e}: deqzoo {mine.forward}/{mine.backward} {mine.total_ms:.2f} ms"
        if loop is not None:
            line += f", {at_least(loop.total_ms / mine.total_ms)} times as fast as the loop"
            line += f" in {at_least(loop.peak_mb / mine.peak_mb, 1)} times less memory"
        if peers:
            best = min(peers, key=lambda r: r.total_ms)
            ratios.append(best.total_ms / mine.total_ms)
            line += f", {at_least(ratios[-1])} times as fast as torchdeq"
            line += f" ({best.forward}/{best.backward} {best.total_ms:.2f} ms)"
            broyden = [r.total_ms for r in peers if r.forward == r.backward == "broyden"]
            if broyden:
                line += f", {at_least(broyden[0] / mine.total_ms, 1)} times as fast as its broyden"
            fewest = min(r.evals + r.backward_evals for r in here if r.library == "deqzoo")
            theirs = min(r.evals + r.backward_evals for r in peers)
            line += f"; fewest evaluations {fewest} against {theirs}"
        lines.append(line)
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        least = at_least(min(ratios))
        lines.append(
            f"Against torchdeq's fastest: {at_least(mean)} times as fast in the geometric mean, at least {least}."
        )
    return lines


def table(rows: Sequence[Row]) -> str:
    """Returns all figures as a Markdown table."""
    columns = "case, rtol, library, forward, backward, evals, vjps, residual, gradient error, forward ms, total ms, "
    columns += "overhead, backward overhead, peak MB"
    names = columns.split(", ")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for r in rows:
        lines.append(
            f"| {r.case} | {r.rtol:.0e} | {r.library} | {r.forward} | {r.backward} | {r.evals} | {r.backward_evals} | "
            f"{r.residual:.1e} | {r.gradient_error:.1e} | {r.forward_ms:.2f} | {r.total_ms:.2f} | {r.overhead:.1%} | "
            f"{r.backward_overhead:.1%} | {r.peak_mb:.1f} |"
        )
    return "\n".join(lines)


def write_rows(rows: Sequence[Row], path: Path, *, repeats: int) -> None:
    """Writes all rows as JSON, with what they were measured by and with."""
    told = header("cells", torch.device("cpu"), quick=False) | {"repeats": repeats}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"header": told, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", "utf-8")
