"""Training curves as SVG."""

import importlib.util
from pathlib import Path

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
    import matplotlib
    from matplotlib.figure import Figure

    accuracies = [
        (label, log.curve(column), colour)
        for label, column, colour in (("training", "train/top1", _INK), ("validation", "val/top1", _BLUE))
        if log.curve(column)
    ]
    # A fixed salt and no date: the same run draws the same file.
    with matplotlib.rc_context({"svg.hashsalt": "deqzoo", "font.size": 9}):
        figure = Figure(figsize=(7.5, 2.6), layout="constrained")
        axes = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
        axes[0].plot(*zip(*loss, strict=True), color=_RED, linewidth=0.8)
        axes[0].set(xlabel="step", ylabel="training loss", yscale="log")
        for label, points, colour in accuracies:
            steps, values = zip(*points, strict=True)
            axes[1].plot(steps, [100 * (1 - v) for v in values], color=colour, linewidth=1.2, label=label)
        if accuracies:
            axes[1].set(xlabel="step", ylabel="errors (%)", yscale="log")
            axes[1].legend(frameon=False)
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True
