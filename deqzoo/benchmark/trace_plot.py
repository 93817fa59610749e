"""The picture of a trace."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from torch import Tensor

from deqzoo.benchmark.trace import Trace
from deqzoo.zoo.svg import COLOURS, require_drawing, write_svg

_COLUMNS, _ROWS = 8, 4


def draw_trace(found: Trace, path: Path, *, title: str) -> None:
    """Draws residuals of all solvers, probabilities along the first one's way, and the equilibria.

    Of maps, the channels that vary most are shown.

    Raises:
        DataError: if matplotlib is not installed.
    """
    require_drawing()
    states = found.states[:_ROWS]

    def draw(figure: Any) -> None:
        figure.suptitle(title)
        grid = figure.add_gridspec(1 + len(states), _COLUMNS, height_ratios=[3.0] + [1.0] * len(states))
        _residuals(figure.add_subplot(grid[0, : _COLUMNS // 2]), found)
        _probabilities(figure.add_subplot(grid[0, _COLUMNS // 2 :]), found)
        for row, (name, state) in enumerate(states, 1):
            _state(figure, grid[row, :], name, state)

    write_svg(path, draw, size=(7.5, 2.8 + 1.1 * len(states)))


def _residuals(axes: Any, found: Trace) -> None:
    for path, colour in zip(found.paths, cycle(COLOURS), strict=False):
        steps = [m.max_steps for m in path.moments if m.residual]
        residuals = [m.residual for m in path.moments if m.residual]
        axes.plot(steps, residuals, color=colour, linewidth=1.2, marker="o", markersize=2, label=path.solver)
    if found.rtol:
        axes.axhline(found.rtol, color="#999999", linewidth=0.8, linestyle="--")
    axes.set(xlabel="steps at most", ylabel="relative residual", yscale="log")
    axes.legend(frameon=False, fontsize=7)


def _probabilities(axes: Any, found: Trace) -> None:
    moments = found.paths[0].moments
    for i, (name, colour) in enumerate(zip(found.classes, cycle(COLOURS), strict=False)):
        shares = [100 * moment.probabilities[i] for moment in moments]
        axes.plot([m.max_steps for m in moments], shares, color=colour, linewidth=1.2, label=name)
    axes.set(xlabel=f"steps of {found.paths[0].solver} at most", ylabel="probability (%)")
    axes.legend(frameon=False, fontsize=7)


def _state(figure: Any, place: Any, name: str, state: Tensor) -> None:
    pictures = _pictures(state)
    grid = place.subgridspec(1, max(len(pictures), 1))
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(picture.numpy(), cmap="viridis", aspect="equal" if state.ndim == 3 else "auto")
        axes.set_axis_off()
        if i == 0:
            axes.set_title(f"{name} {tuple(state.shape)}", fontsize=7, loc="left")


def _pictures(state: Tensor) -> Sequence[Tensor]:
    if state.ndim != 3:
        return [state.T if state.ndim == 2 else state.reshape(1, -1)]
    varied = state.flatten(1).var(1).argsort(descending=True)[:_COLUMNS]
    return list(state[varied])
