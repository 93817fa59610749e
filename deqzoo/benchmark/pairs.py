"""Every solver with every adjoint on models of the zoo: `python -m deqzoo.benchmark.pairs pcdeq-mnist deq-mnist`.

All pairs take turns on the same small batch of the same weights, so that the figures are ratios of one run.
"""

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from deqzoo.adjoints import Adjoint, Implicit, OneStep, Phantom, Reversible, Unrolled
from deqzoo.benchmark.peer_solvers import peer_pairs
from deqzoo.benchmark.rounds import Work, in_turns, peak_mb
from deqzoo.benchmark.small_batches import open_net, small_batch
from deqzoo.errors import AdjointError, SolverError, StructureError, UnconvergedWarning
from deqzoo.nn import equilibria, observe_equilibria, set_runtime
from deqzoo.solvers import GMRES, Anderson, Broyden, FixedPointSolver, NewtonKrylov, Picard
from deqzoo.solvers import Reversible as ReversibleSolver

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What one solver with one adjoint took on one model. What could not be measured is None.

    Attributes:
        model: its name.
        weights: "trained" or "random".
        solver: of the equilibria.
        adjoint: of the gradients.
        converged: share of samples of which every equilibrium reached the tolerance.
        evals: evaluations of f for a sample in the forward pass, summed over equilibria, mean.
        backward_evals: vector-Jacobian products of the backward solves; None for adjoints that solve nothing.
        gradient_error: of all parameters' gradient, relative to a solve in float64; None for gradients with NaN, or if
            that solve did not converge.
        forward_ms: median time of the forward pass, without a graph.
        total_ms: median time of forward and backward pass.
        peak_mb: most memory of forward and backward pass in MiB.
        failure: why the pair cannot be used.
    """

    model: str
    weights: str
    solver: str
    adjoint: str
    converged: float | None = None
    evals: float | None = None
    backward_evals: int | None = None
    gradient_error: float | None = None
    forward_ms: float | None = None
    total_ms: float | None = None
    peak_mb: float | None = None
    failure: str | None = None


def pairs(rtol: float, max_steps: int) -> Iterator[tuple[str, FixedPointSolver, str, Adjoint]]:
    """Yields every solver with every adjoint that can go with it, by name."""
    given: dict[str, Any] = {"rtol": rtol, "max_steps": max_steps}
    newton = NewtonKrylov(rtol=rtol)
    solvers = (Picard(**given), Anderson(**given), Broyden(**given), newton, ReversibleSolver(**given))
    linear = (GMRES(**given), Anderson(**given), Picard(**given))
    for solver in solvers:
        adjoints: list[tuple[str, Adjoint]] = [
            *((f"Implicit({type(backward).__name__})", Implicit(solver=backward)) for backward in linear),
            ("Phantom", Phantom()),
            ("OneStep", OneStep()),
        ]
        if isinstance(solver, Picard):
            adjoints.append(("Unrolled", Unrolled()))
        if isinstance(solver, ReversibleSolver):
            adjoints.append(("Reversible", Reversible()))
        for name, adjoint in adjoints:
            yield type(solver).__name__, solver, name, adjoint


class Gradient:
    """Forward and backward pass of a network's mean cross-entropy on a batch.

    Args:
        net: inputs -> logits (..., K), in eval mode, so that nothing is drawn.
        inputs: of a batch.
    """

    def __init__(self, net: Any, inputs: Tensor) -> None:
        self.net, self.inputs = net, inputs

    def forward(self) -> None:
        """Runs the network without a graph."""
        with torch.no_grad():
            self.net(self.inputs)

    def __call__(self) -> None:
        """Leaves the gradients at the parameters."""
        self.net.zero_grad()
        logits = self.net(self.inputs).flatten(0, -2)
        F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[-1]).backward()

    def value(self) -> Tensor:
        """Returns the gradient of all parameters, one after the other, in float64."""
        self()
        return torch.cat([p.grad.double().flatten() for p in self.net.parameters() if p.grad is not None])


def compare(
    name: str,
    *,
    batch_size: int = 4,
    rtol: float = 1e-4,
    max_steps: int = 100,
    repeats: int = 5,
    peers: bool = False,
    progress: bool = False,
) -> list[Pair]:
    """Returns a row for every pair on one model.

    Args:
        name: what `deqzoo.load` takes, or the name of a model without weights, which gets random ones.
        batch_size: samples at once.
        rtol: relative tolerance of all solvers, forward and backward.
        max_steps: budget of all that have one.
        repeats: rounds that count.
        peers: whether torchdeq's solvers take part, with the same tolerance and budget.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        StructureError: if the model has no equilibrium, or one that is no fixed point.
        SolverError: if torchdeq is to take part and is not installed.
    """
    ways = [*pairs(rtol, max_steps), *(peer_pairs(rtol, max_steps) if peers else ())]
    net, weights = open_net(name)
    inputs = small_batch(net, batch_size)
    if not equilibria(net) or any(not isinstance(m.solver, FixedPointSolver) for m in equilibria(net).values()):
        raise StructureError(
            f"{name} solves for no fixed point. The pairs are of fixed-point solvers: choose another model."
        )
    net.requires_grad_()
    ready: dict[str, tuple[Pair, Gradient]] = {}
    rows: list[Pair] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)  # by torchdeq
        reference = _reference(net, inputs)
        for solver_name, solver, adjoint_name, adjoint in ways:
            row = Pair(model=name, weights=weights, solver=solver_name, adjoint=adjoint_name)
            gradient = Gradient(copy.deepcopy(net), inputs)
            try:
                set_runtime(gradient.net, solver=solver, adjoint=adjoint)
                row = _counted(row, gradient, reference)
                ready[f"{solver_name} {adjoint_name}"] = row, gradient
            except (SolverError, AdjointError, StructureError) as error:
                rows.append(dataclasses.replace(row, failure=str(error).partition(". ")[0]))
        with tqdm(
            total=2 * len(ready) * (1 + repeats), desc=name, unit="run", disable=None if progress else True
        ) as bar:
            options: dict[str, Any] = {"repeats": repeats, "warmups": 1, "device": CPU, "bar": bar}
            forward = in_turns({key: Work(run=gradient.forward) for key, (_, gradient) in ready.items()}, **options)
            total = in_turns({key: Work(run=gradient) for key, (_, gradient) in ready.items()}, **options)
        for key, (row, gradient) in ready.items():
            times = {"forward_ms": forward[key].median, "total_ms": total[key].median}
            rows.append(dataclasses.replace(row, **times, peak_mb=peak_mb(gradient, CPU)))
    return rows


def _reference(net: Any, inputs: Tensor) -> Tensor | None:
    """Returns the gradient at the equilibrium in float64; None if that was not found."""
    exact = copy.deepcopy(net).double()
    tight: dict[str, Any] = {"rtol": 1e-10, "max_steps": 2000}
    set_runtime(exact, solver=Anderson(**tight, patience=200), adjoint=Implicit(solver=GMRES(**tight)))
    with observe_equilibria(exact) as seen:
        found = Gradient(exact, inputs.double() if inputs.is_floating_point() else inputs).value()
    backward = [s.backward_stats for _, s in seen.solutions]
    solved = all(stats is not None and stats.converged.all() for stats in backward)
    return found if solved and seen.converged.all() else None


def _counted(row: Pair, gradient: Gradient, reference: Tensor | None) -> Pair:
    with observe_equilibria(gradient.net) as seen:
        found = gradient.value()
    backward = [s.backward_stats.num_evals for _, s in seen.solutions if s.backward_stats is not None]
    error = math.nan if reference is None else float((found - reference).norm() / reference.norm())
    return dataclasses.replace(
        row,
        converged=float(seen.converged.double().mean()),
        evals=float(seen.num_steps.double().mean()),
        backward_evals=sum(backward) if backward else None,
        gradient_error=None if math.isnan(error) else error,
    )


def main(
    names: Annotated[list[str], typer.Argument(help="Models with fixed points, of images or texts.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 4,
    rtol: Annotated[float, typer.Option(help="Of all solvers, forward and backward.")] = 1e-4,
    max_steps: Annotated[int, typer.Option(min=1, help="Budget of all solvers that have one.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats; medians are shown.")] = 5,
    peers: Annotated[bool, typer.Option("--peers", help="Let torchdeq's solvers take part, for ratios.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    output: Annotated[Path | None, typer.Option(help="Also write all rows to this JSON file.")] = None,
) -> None:
    """Every solver with every adjoint: evaluations, gradient error, time and memory, and which pair to take."""
    from deqzoo.benchmark.pairs_table import against_peers, pairs_markdown, recommendations, write_pairs

    torch.set_num_threads(threads)
    rows: list[Pair] = []
    for name in dict.fromkeys(names):
        options: dict[str, Any] = {"batch_size": batch_size, "rtol": rtol, "max_steps": max_steps, "repeats": repeats}
        rows += compare(name, **options, peers=peers, progress=True)
    plain: Sequence[dict[str, Any]] = [dataclasses.asdict(row) for row in rows]
    typer.echo(pairs_markdown(plain) + "\n\n" + recommendations(plain))
    typer.echo("\n".join(against_peers(plain)))
    if output is not None:
        write_pairs(rows, output, batch_size=batch_size, rtol=rtol, max_steps=max_steps, repeats=repeats)


if __name__ == "__main__":
    typer.run(main)
