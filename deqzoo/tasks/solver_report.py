"""What the solves of a network cost and how they ended, in numbers to log."""

from torch import Tensor

from deqzoo.nn import Observed
from deqzoo.solution import Solution


def forward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns figures of all forward solves, as scalars on their device; empty if there were none.

    They are the mean over samples of the evaluations in all solves, the worst residual, and, if any solve had a
    tolerance to reach, the share of samples of which all those converged.
    """
    if not seen.solutions:
        return {}
    figures = {"evals_mean": seen.num_steps.float().mean(), "residual_max": seen.residual.amax()}
    if seen.judged.solutions:
        figures["converged"] = seen.judged.converged.float().mean()
    return figures


def backward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns the same figures of the latest backward solves."""
    solves = [(name, s.value, s.backward_stats) for name, s in seen.solutions]
    backward = [(name, Solution(value=value, stats=stats)) for name, value, stats in solves if stats is not None]
    return forward_figures(Observed(backward))
