"""Rounding never flatters."""

import pytest

from deqzoo.zoo.figures import certificate_rows, evaluation_rows
from deqzoo.zoo.rounding import at_least, at_most, at_most_significant
from deqzoo.zoo.solve_figures import converged_share

from .conftest import RESULTS


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (99.999, "99.99", "100"),
        (99.54, "99.54", "99.54"),
        (100 * 9954 / 10000, "99.54", "99.54"),
        (100.0, "100", "100"),
        (2.001, "2", "2.01"),
        (0.0, "0", "0"),
    ],
)
def test_merits_are_rounded_down_and_costs_up(value: float, low: str, high: str):
    assert (at_least(value), at_most(value)) == (low, high)


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.81e-5, "9.9e-05"), (1e-4, "1.0e-04"), (0.0, "0"), (9.99, "1.0e+01"), (1.5, "1.5e+00")],
)
def test_residuals_keep_two_digits(value: float, text: str):
    assert at_most_significant(value) == text


def test_rates_are_never_rounded_to_one():
    figures = {"rate_max": [0.99999962, 1.0], "rate_mean": [0.81231], "rtol": 1e-4}
    figures |= {"at_least": {"margin": 0.98765, "least": 1.99e-9}, "at_most": {"‖W‖₂": 23.41201}}
    rows = dict(certificate_rows({**figures, "steps_p95": [4321], "steps_max": [None]}))
    assert rows["rate c, worst image"] == "1 - 3.8e-07, 1"
    assert rows["rate c, mean"] == "0.8124"
    assert rows["iterations to 0.0001, p95"] == "4,321"
    assert rows["iterations to 0.0001, worst image"] == "no bound"
    assert (rows["margin"], rows["least"], rows["‖W‖₂"]) == ("0.9876", "1.9e-09", "23.4121")


def test_failures_are_listed_and_missing_numbers_said():
    rows = dict(evaluation_rows({**RESULTS, "loss": None, "num_nonfinite": 3, "residual_max": None}))
    assert rows["not converged"].startswith("3 of 10,000 images met NaN or inf")
    assert rows["loss"] == rows["worst residual"] == "not a number"


def test_a_fixed_budget_is_neither_a_merit_nor_a_failure():
    fixed = {"converged": None, "num_max_steps": 10_000, "num_nonfinite": 3, "rtol": 0.0, "max_steps": 4}
    rows = dict(evaluation_rows({**RESULTS, **fixed, "solver": "Reversible"}))
    assert "converged" not in rows
    assert rows["fixed budget"] == "4 steps of Reversible each"
    assert rows["not converged"].startswith("3 of 10,000 images met NaN or inf")
    assert converged_share(None) == "fixed budget" and converged_share(0.99999) == "99.99 %"


def test_models_without_equilibria_have_no_rows_of_them():
    rows = dict(evaluation_rows({**RESULTS, "evals_mean": None}))
    assert "converged" not in rows
    assert rows["parameters"] == "324"
