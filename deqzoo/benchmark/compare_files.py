"""A comparison of models as a table, as CSV and as a plot."""

import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import compress
from pathlib import Path
from typing import Any

from deqzoo.benchmark.compare import Row
from deqzoo.zoo.rounding import at_least, at_most, counted
from deqzoo.zoo.solve_figures import converged_share
from deqzoo.zoo.svg import COLOURS, INK, can_draw, write_svg
from deqzoo.zoo.tables import write_csv


def comparison_table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns a comparison in words, header first, without columns of which nothing is known."""
    table = [
        ("model", "parameters", "accuracy", "95 % interval", "evaluations", "converged", "images/s", "MiB/image"),
        *(
            (
                row.name,
                f"{row.num_parameters:,}",
                f"{at_least(row.accuracy)} %",
                f"{at_least(row.accuracy_low)} to {at_most(row.accuracy_high)}",
                "none" if row.evals_mean is None else at_most(row.evals_mean),
                "none" if row.evals_mean is None else converged_share(row.converged),
                "not measured" if row.images_per_second is None else f"{int(row.images_per_second):,}",
                "not measured" if row.memory_mb is None else at_most(row.memory_mb),
            )
            for row in rows
        ),
    ]
    measured = [any(getattr(row, cost) is not None for row in rows) for cost in ("images_per_second", "memory_mb")]
    told = [*[True] * (len(table[0]) - len(measured)), *measured]
    return [tuple(compress(line, told)) for line in table]


def machines(rows: Sequence[Row]) -> str:
    """Returns in words what speed and memory are of."""
    met = dict.fromkeys(
        f"{row.device}, {counted(row.num_threads, 'thread')} of the CPU, batches of {row.batch_size}"
        for row in rows
        if row.device is not None and row.num_threads is not None
    )
    turns = any(row.images_per_second_low is not None for row in rows)
    if not met:
        return "No speeds and memory of the same circumstances are published (--measure takes them here, in turns)."
    how = "all models in turns, medians" if turns else "published figures; --measure compares them on this machine"
    return f"Speed: {'; '.join(met)} ({how})."


def write_comparison(rows: Sequence[Row], folder: Path, *, name: str) -> list[Path]:
    """Writes compare-NAME.csv and, if matplotlib is installed, compare-NAME.svg. Returns their paths.

    Args:
        rows: of the models.
        folder: where to.
        name: of the data set, or a pattern of models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    table, plot = (folder / f"compare-{base}.{suffix}" for suffix in ("csv", "svg"))
    write_csv((row.as_dict() for row in rows), table, columns=[field.name for field in fields(Row)])
    if not can_draw():
        return [table]
    write_svg(plot, lambda figure: _draw(figure, rows), size=(9.0, 3.0))
    return [table, plot]


def _draw(figure: Any, rows: Sequence[Row]) -> None:
    """Draws errors with their intervals over the parameters, and over the speed where it is known."""
    costs = [("parameters", "num_parameters")]
    if all(row.images_per_second is not None for row in rows):
        costs.append(("images/s", "images_per_second"))
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axis, (label, key) in zip(axes, costs, strict=True):
        for i, row in enumerate(rows):
            error = 100 - row.accuracy
            spread = [[error - (100 - row.accuracy_high)], [100 - row.accuracy_low - error]]
            colour = COLOURS[i % len(COLOURS)] if row.evals_mean is not None else INK
            marker = "o" if row.evals_mean is not None else "s"
            axis.errorbar(getattr(row, key), error, yerr=spread, fmt=marker, color=colour, capsize=2, label=row.name)
        met = [getattr(row, key) for row in rows]
        axis.set(xlabel=label, xscale="log" if max(met) > 10 * min(met) else "linear")
        # No errors at all have no logarithm.
        axis.set(yscale="log" if all(row.accuracy < 100 for row in rows) else "linear")
    axes[0].set(ylabel="errors (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
