"""Plots of a release as SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deqzoo.zoo.run_log import RunLog
from deqzoo.zoo.svg import BLUE, INK, RED, can_draw, write_svg


def draw_curves(log: RunLog, path: Path) -> bool:
    """Draws loss and accuracy over the steps of a run, if matplotlib (the extra `plot`) is installed.

    Returns:
        Whether a file was written: not without matplotlib, nor for a run that logged nothing.
    """
    loss = log.curve("train/loss")
    if not loss or not can_draw():
        return False
    accuracies = [
        (label, log.curve(column), colour)
        for label, column, colour in (("training", "train/top1", INK), ("validation", "val/top1", BLUE))
        if log.curve(column)
    ]

    validation = log.curve("val/loss") if log.curve("val/bits_per_char") else []

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
        axes[0].plot(*zip(*loss, strict=True), color=RED, linewidth=0.8)
        axes[0].set(xlabel="step", ylabel="training loss", yscale="log")
        if validation:
            axes[0].plot(*zip(*validation, strict=True), color=BLUE, linewidth=1.2, label="validation")
            axes[0].set(ylabel="loss (nats per token)")
            axes[0].legend(frameon=False)
        for label, points, colour in accuracies:
            steps, values = zip(*points, strict=True)
            axes[1].plot(steps, [100 * (1 - v) for v in values], color=colour, linewidth=1.2, label=label)
        if accuracies:
            axes[1].set(xlabel="step", ylabel="errors (%)", yscale="log")
            axes[1].legend(frameon=False)

    write_svg(path, draw, size=(7.5, 2.6))
    return True


def draw_budgets(curve: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draws the errors over the evaluations that are spent, as `draw_curves` does.

    Args:
        curve: figures for each budget, with "evals_mean" and "accuracy".
        path: the file to write.
    """
    if not curve or not can_draw():
        return False

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        spent, errors = zip(*((p["evals_mean"], 100 - p["accuracy"]) for p in curve), strict=True)
        axes.plot(spent, errors, color=BLUE, linewidth=1.2, marker="o", markersize=3)
        axes.set(xlabel="evaluations per image", ylabel="errors (%)", xscale="log", yscale="log")

    write_svg(path, draw, size=(4.5, 2.6))
    return True
