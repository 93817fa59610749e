"""What the solves of a network cost and how they ended, in numbers to log and words to raise."""

from torch import Tensor, nn

from deqzoo.errors import listed
from deqzoo.nn import Observed
from deqzoo.solution import Solution, Status


def forward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns figures of all forward solves, as scalars on their device; empty if there were none.

    They are the mean over samples of the evaluations in all solves, the share of samples of which all solves
    converged, and the worst residual.
    """
    if not seen.solutions:
        return {}
    return {
        "evals_mean": seen.num_steps.float().mean(),
        "converged": seen.converged.float().mean(),
        "residual_max": seen.residual.amax(),
    }


def backward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns the same figures of the latest backward solves."""
    solves = [(name, s.value, s.backward_stats) for name, s in seen.solutions]
    backward = [(name, Solution(value=value, stats=stats)) for name, value, stats in solves if stats is not None]
    return forward_figures(Observed(backward))


def find_nonfinite(net: nn.Module, images: Tensor | None, seen: Observed) -> str:
    """Returns where NaN or inf is: in how many images (B, ...), if there are any, which weights, which solves."""
    inputs = ""
    if images is not None:
        bad_images = int((~images.isfinite().flatten(1).all(1)).sum())
        inputs = f"Images with NaN or inf: {bad_images} of {len(images)}. "
    weights = [name for name, p in net.named_parameters() if not bool(p.isfinite().all())]
    solves = [
        f"{name} ({count} of {len(solution.stats.status)} samples)"
        for name, solution in seen.solutions
        if (count := int((solution.stats.status == Status.NONFINITE).sum()))
    ]
    return f"{inputs}Weights: {listed(weights, 5)}. Solves: {listed(solves, 5)}."
