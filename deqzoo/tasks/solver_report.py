"""What the solves of a network cost and how they ended, in numbers to log and words to raise."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deqzoo.nn import Observed
from deqzoo.solution import Stats, Status


def forward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns figures of all forward solves, as scalars on their device; empty if there were none."""
    return _figures([solution.stats for _, solution in seen.solutions])


def backward_figures(seen: Observed) -> dict[str, Tensor]:
    """Returns figures of the latest backward solves, as scalars on their device; empty if there were none."""
    return _figures([s.backward_stats for _, s in seen.solutions if s.backward_stats is not None])


def _figures(solves: Sequence[Stats]) -> dict[str, Tensor]:
    """Returns three figures of solves of the same samples.

    They are the mean over samples of the evaluations in all solves, the share of samples of which all solves
    converged, and the worst residual.
    """
    if not solves:
        return {}
    steps = torch.stack([stats.num_steps for stats in solves]).sum(0)
    converged = torch.stack([stats.converged for stats in solves]).all(0)
    return {
        "evals_mean": steps.float().mean(),
        "converged": converged.float().mean(),
        "residual_max": torch.stack([stats.residual for stats in solves]).amax(),
    }


def find_nonfinite(net: nn.Module, images: Tensor, seen: Observed) -> str:
    """Returns where NaN or inf is: in how many images (B, ...), which weights, which solves."""
    bad_images = int((~images.isfinite().flatten(1).all(1)).sum())
    weights = [name for name, p in net.named_parameters() if not bool(p.isfinite().all())]
    solves = [
        f"{name} ({count} of {len(solution.stats.status)} samples)"
        for name, solution in seen.solutions
        if (count := int((solution.stats.status == Status.NONFINITE).sum()))
    ]
    return " ".join(
        (
            f"Images with NaN or inf: {bad_images} of {len(images)}.",
            f"Weights: {_some(weights)}.",
            f"Solves: {_some(solves)}.",
        )
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
