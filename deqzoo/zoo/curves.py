"""Plots of a release as SVG."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deqzoo.zoo.run_log import RunLog

_INK, _RED, _BLUE = "#222222", "#b3261e", "#1f5fa8"


def draw_curves(log: RunLog, path: Path) -> bool:
    """Draws loss and accuracy over the steps of a run, if matplotlib (the extra `plot`) is installed.

    Returns:
        Whether a file was written: not without matplotlib, nor for a run that logged nothing.
    """
    loss = log.curve("train/loss")
    if not loss or importlib.util.find_spec("matplotlib") is None:
        return False
    accuracies = [
        (label, log.curve(column), colour)
        for label, column, colour in (("training", "train/top1", _INK), ("validation", "val/top1", _BLUE))
        if log.curve(column)
    ]

    validation = log.curve("val/loss") if log.curve("val/bits_per_char") else []

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
        axes[0].plot(*zip(*loss, strict=True), color=_RED, linewidth=0.8)
        axes[0].set(xlabel="step", ylabel="training loss", yscale="log")
        if validation:
            axes[0].plot(*zip(*validation, strict=True), color=_BLUE, linewidth=1.2, label="validation")
            axes[0].set(ylabel="loss (nats per token)")
            axes[0].legend(frameon=False)
        for label, points, colour in accuracies:
            steps, values = zip(*points, strict=True)
            axes[1].plot(steps, [100 * (1 - v) for v in values], color=colour, linewidth=1.2, label=label)
        if accuracies:
            axes[1].set(xlabel="step", ylabel="errors (%)", yscale="log")
            axes[1].legend(frameon=False)

    _write(path, draw, size=(7.5, 2.6))
    return True


def draw_budgets(curve: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draws the errors over the evaluations that are spent, as `draw_curves` does.

    Args:
        curve: figures for each budget, with "evals_mean" and "accuracy".
        path: the file to write.
    """
    if not curve or importlib.util.find_spec("matplotlib") is None:
        return False

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        spent, errors = zip(*((p["evals_mean"], 100 - p["accuracy"]) for p in curve), strict=True)
        axes.plot(spent, errors, color=_BLUE, linewidth=1.2, marker="o", markersize=3)
        axes.set(xlabel="evaluations per image", ylabel="errors (%)", xscale="log", yscale="log")

    _write(path, draw, size=(4.5, 2.6))
    return True


def _write(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same figures draw the same file.
    with matplotlib.rc_context({"svg.hashsalt": "deqzoo", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
            for scale in (axis.xaxis, axis.yaxis) if axis.get_xscale() == "log" else (axis.yaxis,):
                scale.set_major_formatter("{x:g}")
                scale.set_minor_formatter("{x:g}")
        figure.savefig(path, format="svg", metadata={"Date": None})
