"""Figures of several solves in one."""

from dataclasses import replace

import pytest
import torch

from deqzoo.nn import Observed
from deqzoo.solution import Solution, Stats, Status
from deqzoo.tasks.solver_report import backward_figures, forward_figures


def stats(steps, residuals, statuses) -> Stats:
    return Stats(
        num_evals=max(steps),
        num_steps=torch.tensor(steps),
        residual=torch.tensor(residuals),
        status=torch.tensor([int(status) for status in statuses]),
    )


OK, STALLED, NONFINITE = Status.CONVERGED, Status.STALLED, Status.NONFINITE
FIRST = stats([3, 5, 4], [0.01, 0.02, 0.03], [OK, OK, STALLED])
SECOND = stats([7, 1, 2], [0.04, 0.01, 0.02], [OK, NONFINITE, OK])


def observed(*solves: tuple[str, Stats], backward: Stats | None = None) -> Observed:
    """Returns an observation; every solve has an outdated backward solve and the given one."""
    log = [] if backward is None else [SECOND, backward]
    values = torch.zeros(3, 1)
    return Observed([(name, Solution(value=values, stats=s, backward_log=list(log))) for name, s in solves])


def test_evaluations_add_up_and_the_worst_solve_counts():
    figures = forward_figures(observed(("first", FIRST), ("second", SECOND)))
    assert figures["evals_mean"] == pytest.approx((10 + 6 + 6) / 3)
    assert figures["converged"] == pytest.approx(1 / 3)
    assert figures["residual_max"] == pytest.approx(0.04)


def test_a_fixed_budget_has_no_share_of_samples_that_converged():
    budget = replace(stats([9, 9, 9], [0.1, 0.2, 0.3], [Status.MAX_STEPS] * 3), fixed_budget=True)
    figures = forward_figures(observed(("first", budget)))
    assert figures.keys() == {"evals_mean", "residual_max"}
    figures = forward_figures(observed(("first", budget), ("second", SECOND)))
    assert figures["converged"] == pytest.approx(2 / 3)
    assert figures["residual_max"] == pytest.approx(0.3)


def test_the_latest_backward_solve_is_reported():
    figures = backward_figures(observed(("first", SECOND), backward=FIRST))
    assert figures["evals_mean"] == pytest.approx(4)
    assert figures["converged"] == pytest.approx(2 / 3)
    assert figures["residual_max"] == pytest.approx(0.03)


def test_without_solves_there_are_no_figures():
    assert forward_figures(Observed()) == {}
    assert backward_figures(observed(("first", FIRST))) == {}
