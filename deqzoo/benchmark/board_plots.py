"""Plots of a board: errors against parameters, against executed operations, against latency."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from deqzoo.zoo.svg import COLOURS, can_draw, write_svg

PLOTS = {
    "parameters": "parameters",
    "flops": "executed MFLOPs per image",
    "latency": "time of one image (ms)",
}
"""Plots of a board, each with the label of its horizontal axis."""


def draw_board(entries: Sequence[Mapping[str, Any]], folder: Path, base: str) -> list[Path]:
    """Draws errors against each cost of `PLOTS`, if matplotlib is installed. Returns the files that were written.

    An implicit network is a curve over budgets of its solver, with a ring around its own; an explicit one is a square.
    Those of random weights have no accuracy, and are left out.
    """
    known = [entry for entry in entries if entry["accuracy"] is not None]
    if not known or not can_draw():
        return []
    files = []
    for cost, label in PLOTS.items():
        file = folder / f"{base}-{cost}.svg"

        def draw(figure: Any, cost: str = cost, label: str = label) -> None:
            axes = figure.subplots()
            for entry, colour in zip(known, cycle(COLOURS), strict=False):
                _draw_entry(axes, entry, cost, colour)
            axes.set(xlabel=label, ylabel="errors (%)", xscale="log", yscale="log")
            axes.legend(frameon=False, fontsize=7)

        write_svg(file, draw, size=(4.5, 3.0))
        files.append(file)
    return files


def _draw_entry(axes: Any, entry: Mapping[str, Any], cost: str, colour: str) -> None:
    at, errors = _cost(entry, cost), _errors(entry, entry)
    if not entry["curve"]:
        axes.plot([at], [errors], color=colour, marker="s", linestyle="none", markersize=5, label=entry["name"])
        return
    spent = [_cost(entry, cost, point) for point in entry["curve"]]
    wrong = [_errors(entry, point) for point in entry["curve"]]
    axes.plot(spent, wrong, color=colour, linewidth=1.2, marker="o", markersize=3, label=entry["name"])
    axes.plot([at], [errors], color=colour, marker="o", fillstyle="none", markersize=8)


def _cost(entry: Mapping[str, Any], cost: str, point: Mapping[str, Any] | None = None) -> float:
    if cost == "parameters":
        return entry["num_parameters"]
    if cost == "flops":
        return (entry["flops_mean"] if point is None else point["flops_mean"]) / 1e6
    return entry["latency"]["median"] if point is None else point["latency_ms"]


def _errors(entry: Mapping[str, Any], figures: Mapping[str, Any]) -> float:
    # A logarithmic axis has no zero: no error at all is drawn as half of one.
    return max(100 - figures["accuracy"], 50 / entry["num_images"])
