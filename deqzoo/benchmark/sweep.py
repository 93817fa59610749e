"""What a model is worth at other budgets and tolerances of its solver: accuracy against compute."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from deqzoo.benchmark.evaluate import evaluate
from deqzoo.data import ImageData
from deqzoo.errors import StructureError
from deqzoo.nn import equilibria, runtime_kept, set_runtime
from deqzoo.ode import Integrator
from deqzoo.zoo.curves import draw_budgets
from deqzoo.zoo.rounding import at_least, at_most
from deqzoo.zoo.solve_figures import converged_share
from deqzoo.zoo.tables import write_csv

FIGURES: tuple[str, ...] = (
    "num_images",
    "max_steps",
    "rtol",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "loss",
    "converged",
    "evals_mean",
    "evals_p95",
    "residual_max",
    "images_per_second",
)
"""Of an evaluation, what a point of a sweep has."""


def sweep(
    model: nn.Module,
    data: ImageData,
    *,
    budgets: Sequence[int] | None = None,
    rtols: Sequence[float] = (),
    device: str | torch.device = "cpu",
    batch_size: int = 512,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Returns the figures of a model at budgets of its solvers, least first, then at tolerances.

    The model's solvers are as before afterwards.

    Args:
        model: with `.net`, as `deqzoo.load` returns it.
        data: the test set.
        budgets: most steps of each solve; by default 1, 2, 4, … and the model's own, up to twice that, but no further
            than to where no image needs more. Of ODEs, which have no solution before their end, none by default.
        rtols: relative tolerances, at the model's own budget; of ODEs, by default those from 0.1 to the model's own.
        device: where to run.
        batch_size: most images at once.
        progress: whether to show a bar on a terminal's stderr.

    Raises:
        StructureError: if the model has no equilibrium.
        DataError: if the data cannot be read, or has other labels than the model.
    """
    net: Any = model.net
    own = _largest_budget(net)
    with runtime_kept(net):
        if budgets is None and any(isinstance(module.solver, Integrator) for module in equilibria(net).values()):
            budgets, rtols = (), rtols or coarser(max(module.solver.rtol for module in equilibria(net).values()))
        chosen = doubling(own) if budgets is None else sorted(set(budgets))
        points: list[dict[str, Any]] = []
        bar = tqdm(total=len(chosen) + len(rtols), desc="sweeping", unit="point", disable=None if progress else True)

        def measure(**runtime: Any) -> None:
            set_runtime(net, **runtime)
            found = evaluate(model, data, device=device, batch_size=batch_size).as_dict()
            points.append({key: found[key] for key in FIGURES} | {"enough": not found["num_max_steps"]})
            bar.update()

        for budget in chosen:
            if budgets is None and budget != own and any(point["enough"] for point in points):
                continue  # no image would take more steps
            measure(max_steps=budget)
        set_runtime(net, max_steps=own)
        for rtol in rtols:
            measure(rtol=rtol)
        bar.close()
    return [{key: point[key] for key in FIGURES} for point in points]


def doubling(own: int) -> list[int]:
    """Returns 1, 2, 4, … up to twice `own`, and `own` itself, in order."""
    return sorted({2**k for k in range((2 * own).bit_length())} | {own})


def coarser(own: float) -> list[float]:
    """Returns 0.1, 0.01, … and, last, `own`."""
    return [10.0**-k for k in range(1, 12) if 10.0**-k > 1.01 * own] + [own]


def write_sweep(points: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Writes sweep.csv, one row for each point, and, if matplotlib is installed, sweep.svg. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, plot = folder / "sweep.csv", folder / "sweep.svg"
    write_csv(points, table, columns=FIGURES)
    return [table, plot] if draw_budgets(points, plot) else [table]


def sweep_table(points: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a sweep in words, header first."""
    return [
        ("steps", "rtol", "accuracy", "evaluations", "p95", "converged", "images/s"),
        *(
            (
                str(point["max_steps"]),
                f"{point['rtol']:g}",
                f"{at_least(point['accuracy'])} %",
                at_most(point["evals_mean"]),
                f"{point['evals_p95']:g}",
                converged_share(point["converged"]),
                f"{int(point['images_per_second']):,}",
            )
            for point in points
        ),
    ]


def _largest_budget(net: nn.Module) -> int:
    solvers = [module.solver for module in equilibria(net).values()]
    if not solvers:
        raise StructureError(
            f"{type(net).__name__} has no equilibrium. A sweep is over the budgets of solvers: evaluate it as it is."
        )
    return max(solver.max_steps for solver in solvers)
