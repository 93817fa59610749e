"""Compares solvers and backward passes with each other and with torchdeq: `python -m deqzoo.benchmark.solvers`.

All contenders run interleaved in one process, so that the figures are ratios of one run.
"""

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from deqzoo.benchmark.cells import Case, cases
from deqzoo.benchmark.contenders import Contender, ours, torchdeqs, true_residual, unrolled_loop
from deqzoo.benchmark.memory import peak_bytes
from deqzoo.benchmark.solvers_table import Row, summary, table, write_rows
from deqzoo.benchmark.watched_map import WatchedMap

RTOLS = (1e-3, 1e-5)
BUDGET = 150


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


def main(
    repeats: Annotated[int, typer.Option(help="Interleaved repeats; medians are shown.")] = 9,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    case: Annotated[list[str] | None, typer.Option(help="linear, convolution or transformer; all by default.")] = None,
    gain: Annotated[float, typer.Option(help="Of the transformer's weights: the larger, the stiffer.")] = 1.7,
    output: Annotated[
        Path | None, typer.Option(help="Also write all rows to this JSON file; its folder is made.")
    ] = None,
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
    for line in summary(rows):
        typer.echo(line)
    if output is not None:
        write_rows(rows, output, repeats=repeats)


if __name__ == "__main__":
    typer.run(main)
