"""Figures that evaluations of images and of texts have in common, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deqzoo.solution import Status
from deqzoo.zoo.rounding import at_least, at_most, cost, counted


@dataclass(frozen=True, kw_only=True)
class Units:
    """What the figures of an evaluation count, in the singular.

    Attributes:
        sample: what is predicted, and what evaluations are shared out to.
        solved: what is solved as one.
        judged: what reaches the tolerance or does not.
        several: whether a network may have several equilibria, so that a budget is that of each.
    """

    sample: str
    solved: str
    judged: str
    several: bool


def solve_rows(figures: Mapping[str, Any], units: Units) -> list[tuple[str, str]]:
    """Returns (what, how much) for what solves cost and how they ended; none without equilibria."""
    if figures["evals_mean"] is None:
        return []
    of = "" if units.solved == units.sample else f" of {units.solved}s"
    budget = f"{figures['max_steps']} steps of {figures['solver']}{' each' if units.several else ''}"
    judged = figures["converged"] is not None
    rows = [
        (
            "evaluations",
            f"{at_most(figures['evals_mean'])} per {units.sample} in the mean, p95{of} {figures['evals_p95']:g}, at "
            f"most {figures['evals_max']}",
        ),
        (
            "converged",
            f"{converged_share(figures['converged'])} of {units.judged}s at rtol {figures['rtol']:g}, within {budget}",
        )
        if judged
        else (FIXED_BUDGET, budget),
        ("worst residual", cost(figures["residual_max"], significant=True)),
    ]
    for status in (Status.MAX_STEPS, Status.STALLED, Status.NONFINITE):
        count = figures.get(f"num_{status.name.lower()}", 0)
        if count and (judged or status != Status.MAX_STEPS):  # to spend a fixed budget is no failure
            total = figures[f"num_{units.solved}s"]
            rows.append(("not converged", f"{count:,} of {total:,} {units.solved}s {status.describe()}"))
    return rows


FIXED_BUDGET = "fixed budget"


def converged_share(converged: float | None) -> str:
    """Returns the share of solves that reached their tolerance in per cent; None is for those that had none."""
    return FIXED_BUDGET if converged is None else f"{at_least(100 * converged)} %"


def machine_rows(figures: Mapping[str, Any], units: Units) -> list[tuple[str, str]]:
    """Returns (what, how much) for the speed, if there is one, and the size of the network."""
    rows = [("parameters", f"{figures['num_parameters']:,}")]
    speed = f"{units.sample}s_per_second"
    if speed in figures:
        threads = f", {counted(figures['num_threads'], 'thread')}" if figures["device"] == "cpu" else ""
        where = f"{figures['device']}{threads}, {figures['dtype']}, batches of {figures['batch_size']}"
        rows.insert(0, ("speed", f"{int(figures[speed]):,} {units.sample}s/s ({where})"))
    return rows
