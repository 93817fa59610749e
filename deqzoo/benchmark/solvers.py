"""Compares solvers and backward passes with each other and with torchdeq: `python -m deqzoo.benchmark.solvers`.

All contenders run interleaved in one process, so that the figures are ratios of one run.
"""

import importlib.util
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from deqzoo.benchmark.cells import Case, cases
from deqzoo.benchmark.contenders import Contender, ours, torchdeqs, true_residual, unrolled_loop
from deqzoo.benchmark.memory import peak_bytes
from deqzoo.benchmark.watched_map import WatchedMap

RTOLS = (1e-3, 1e-5)
BUDGET = 150


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


def _timed(compute: Callable[[], object]) -> float:
    start = time.perf_counter()
    compute()
    return 1e3 * (time.perf_counter() - start)


def _forward_backward(case: Case, contender: Contender) -> tuple[Tensor, Tensor, int]:
    """Returns the equilibrium, the gradient of the injection and the backward evaluations."""
    case.injection.grad = None
    case.cell.zero_grad()
    z, backward_evals = contender.attempt(case.f, torch.zeros_like(case.injection))
    case.loss(z).backward()
    assert case.injection.grad is not None
    return z.detach(), case.injection.grad, backward_evals()


@torch.no_grad()
def _forward(case: Case, contender: Contender) -> tuple[float, float]:
    """Returns how long it took, in ms, and the share that was not spent inside of f."""
    f, start = WatchedMap(case.f), torch.zeros_like(case.injection)
    total = _timed(lambda: contender.attempt(f, start))
    return total, 1 - f.forward_ms / total


def _backward_overhead(case: Case, contender: Contender) -> tuple[float, int]:
    """Returns the share of a backward pass that was not spent inside of f, and the evaluations before it."""
    f = WatchedMap(case.f)
    loss = case.loss(contender.attempt(f, torch.zeros_like(case.injection))[0])
    evals = f.evals
    total = _timed(loss.backward)
    return 1 - f.backward_ms / total, evals


def compare(case: Case, rtol: float, *, repeats: int, progress: tqdm | None = None) -> list[Row]:
    """Returns a row for every contender on one case."""
    case.injection.requires_grad_()
    exact = Case(case.name, case.cell.double(), case.injection.detach().double().requires_grad_())
    _, reference, _ = _forward_backward(exact, next(ours(1e-9, 2000)))
    case.cell.float()

    contenders = [c for c in ours(rtol, BUDGET) if c.forward not in case.hopeless]
    if importlib.util.find_spec("torchdeq"):
        contenders += torchdeqs(rtol, BUDGET)
    contenders.append(unrolled_loop(_backward_overhead(case, contenders[0])[1]))

    forward: list[list[tuple[float, float]]] = [[] for _ in contenders]
    backward: list[list[tuple[float, int]]] = [[] for _ in contenders]
    total_ms: list[list[float]] = [[] for _ in contenders]
    for _ in range(repeats):
        for i, contender in enumerate(contenders):
            forward[i].append(_forward(case, contender))
            backward[i].append(_backward_overhead(case, contender))
            total_ms[i].append(_timed(lambda c=contender: _forward_backward(case, c)))
            if progress is not None:
                progress.update()

    rows = []
    for contender, there, back, total in zip(contenders, forward, backward, total_ms, strict=True):
        value, gradient, backward_evals = _forward_backward(case, contender)
        forward_ms, overhead = (statistics.median(values) for values in zip(*there, strict=True))
        backward_overhead, evals = (statistics.median(values) for values in zip(*back, strict=True))
        rows.append(
            Row(
                case=case.name,
                rtol=rtol,
                library=contender.library,
                forward=contender.forward,
                backward=contender.backward,
                evals=round(evals),
                backward_evals=backward_evals,
                residual=true_residual(case, value),
                gradient_error=float((gradient - reference).norm() / reference.norm()),
                forward_ms=forward_ms,
                total_ms=statistics.median(total),
                overhead=overhead,
                backward_overhead=backward_overhead,
                peak_mb=peak_bytes(lambda c=contender: _forward_backward(case, c)) / 2**20,
            )
        )
    return rows


def summary(rows: list[Row]) -> str:
    """Returns the ratios that matter, in words."""
    lines, ratios = [], []
    for case, rtol in dict.fromkeys((row.case, row.rtol) for row in rows):
        here = [r for r in rows if (r.case, r.rtol) == (case, rtol) and r.converged]
        mine = min((r for r in here if r.library == "deqzoo"), key=lambda r: r.total_ms)
        peers = [r for r in here if r.library == "torchdeq"]
        loop = next((r for r in here if r.library == "loop"), None)
        line = f"{case:12} rtol {rtol:.0e}: deqzoo {mine.forward}/{mine.backward} {mine.total_ms:.2f} ms"
        if loop is not None:
            line += f", {loop.total_ms / mine.total_ms:.2f} x faster than the loop"
            line += f" in {loop.peak_mb / mine.peak_mb:.1f} x less memory"
        if peers:
            best = min(peers, key=lambda r: r.total_ms)
            ratios.append(best.total_ms / mine.total_ms)
            line += f", {ratios[-1]:.2f} x faster than torchdeq ({best.forward}/{best.backward} {best.total_ms:.2f} ms)"
            broyden = [r.total_ms for r in peers if r.forward == r.backward == "broyden"]
            if broyden:
                line += f", {broyden[0] / mine.total_ms:.1f} x faster than its broyden"
            fewest = min(r.evals + r.backward_evals for r in here if r.library == "deqzoo")
            theirs = min(r.evals + r.backward_evals for r in peers)
            line += f"; fewest evaluations {fewest} against {theirs}"
        lines.append(line)
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines.append(f"Against torchdeq's fastest: {mean:.2f} x in the geometric mean, at least {min(ratios):.2f} x.")
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
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


def main(
    repeats: Annotated[int, typer.Option(help="Interleaved repeats; medians are shown.")] = 9,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    case: Annotated[list[str] | None, typer.Option(help="linear, convolution or transformer; all by default.")] = None,
    gain: Annotated[float, typer.Option(help="Of the transformer's weights: the larger, the stiffer.")] = 1.7,
    output: Annotated[Path | None, typer.Option(help="Also write all rows to this JSON file.")] = None,
) -> None:
    """Solver benchmark: evaluations, true residuals, time and memory on three cells, next to torchdeq and a loop."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    chosen = [c for c in cases(gain) if not case or c.name in case]
    rows: list[Row] = []
    with tqdm(desc="solver benchmark", unit=" runs") as progress:
        for one in chosen:
            for rtol in RTOLS:
                rows += compare(one, rtol, repeats=repeats, progress=progress)
    typer.echo(f"torch {torch.__version__}, CPU, {threads} thread(s), medians of {repeats} interleaved repeats\n")
    typer.echo(table(rows) + "\n")
    for one in chosen:
        for solver, reason in one.hopeless.items():
            typer.echo(f"{one.name}: {solver} is left out, as {reason}.")
    typer.echo(summary(rows))
    if output is not None:
        output.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    typer.run(main)
