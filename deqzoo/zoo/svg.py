"""Figures as SVG files, the same bytes for the same numbers."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deqzoo.errors import DataError

INK, RED, BLUE = "#222222", "#b3261e", "#1f5fa8"
COLOURS = (BLUE, RED, "#2e7d32", "#8e5a00", "#6a3d9a", "#00838f", "#ad1457", "#546e7a")
"""Of the lines of a figure, in turn."""


def can_draw() -> bool:
    """Whether matplotlib (the extra `plot`) is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_drawing() -> None:
    """Makes sure that a picture can be drawn.

    Raises:
        DataError: if matplotlib is not installed.
    """
    if not can_draw():
        raise DataError('A picture needs matplotlib, which is not installed: pip install "deqzoo[plot]".')


def write_svg(path: Path, draw: Callable[[Any], None], *, size: tuple[float, float]) -> None:
    """Writes a figure.

    Args:
        path: the file; its folder is made.
        draw: fills a matplotlib `Figure`.
        size: in inches.
    """
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
                low, high = scale.get_view_interval()
                if low <= 0 or high < 1000 * low:  # on longer axes they would overlap
                    scale.set_minor_formatter("{x:g}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
