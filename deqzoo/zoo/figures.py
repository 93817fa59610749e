"""Measured figures in words. Rounding never flatters: merits are rounded down, costs up."""

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from deqzoo.solution import Status

HEADLINES = (
    "data",
    "num_images",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "loss",
    "calibration_error",
    "num_parameters",
    "converged",
    "evals_mean",
    "evals_p95",
    "evals_max",
    "residual_max",
    "solver",
    "max_steps",
    "rtol",
)
"""Figures of an evaluation that belong to the weights and not to the machine."""


def at_least(value: float, digits: int = 2) -> str:
    """Returns a number rounded down to `digits` decimals, without trailing zeros."""
    return _rounded(value, digits, ROUND_FLOOR)


def at_most(value: float, digits: int = 2) -> str:
    """Returns a number rounded up to `digits` decimals, without trailing zeros."""
    return _rounded(value, digits, ROUND_CEILING)


def at_most_significant(value: float) -> str:
    """Returns a number rounded up to two significant digits, such as 9.8e-05."""
    if value == 0:
        return "0"
    scale = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return f"{math.ceil(round(value / scale, 6)) * scale:.1e}"


def evaluation_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the figures of an evaluation that are there."""
    rows = [
        (
            "accuracy",
            f"{at_least(figures['accuracy'])} % (95 % interval {at_least(figures['accuracy_low'])} to "
            f"{at_most(figures['accuracy_high'])})",
        ),
        ("loss", _cost(figures["loss"])),
        ("calibration error", _cost(figures["calibration_error"])),
    ]
    if figures["evals_mean"] is not None:
        rows += [
            (
                "evaluations",
                f"{at_most(figures['evals_mean'])} per image in the mean, p95 {figures['evals_p95']:g}, "
                f"at most {figures['evals_max']}",
            ),
            (
                "converged",
                f"{at_least(100 * figures['converged'])} % of images at rtol {figures['rtol']:g}, within "
                f"{figures['max_steps']} steps of {figures['solver']} each",
            ),
            ("worst residual", _cost(figures["residual_max"], significant=True)),
        ]
    for status in (Status.MAX_STEPS, Status.STALLED, Status.NONFINITE):
        count = figures.get(f"num_{status.name.lower()}", 0)
        if count:
            rows.append(("not converged", f"{count:,} of {figures['num_images']:,} images {status.describe()}"))
    if "images_per_second" in figures:
        count = figures["num_threads"]
        plural = "" if count == 1 else "s"
        threads = f", {count} thread{plural}" if figures["device"] == "cpu" else ""
        rows.append(
            (
                "speed",
                f"{int(figures['images_per_second']):,} images/s ({figures['device']}{threads}, "
                f"{figures['dtype']}, batches of {figures['batch_size']})",
            )
        )
    rows.append(("parameters", f"{figures['num_parameters']:,}"))
    return rows


def certificate_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the figures of a certificate, equilibria in their order."""
    return [
        ("rate c, worst image", ", ".join(map(_rate, figures["rate_max"]))),
        ("rate c, mean", ", ".join(map(_rate, figures["rate_mean"]))),
        (
            f"iterations to {figures['rtol']:g}, p95",
            ", ".join("no bound" if k is None else f"{k:,}" for k in figures["steps_p95"]),
        ),
        (
            f"iterations to {figures['rtol']:g}, worst image",
            ", ".join("no bound" if k is None else f"{k:,}" for k in figures["steps_max"]),
        ),
        ("smallest entry of W", f"{figures['min_weight']:.3g}"),
    ]


def _rate(value: float) -> str:
    """Returns a rate below 1 rounded up, as its distance from 1 where it is close."""
    gap = 1 - value
    if gap > 1e-3 or gap <= 0:
        return at_most(value, 4)
    scale = 10.0 ** (math.floor(math.log10(gap)) - 1)
    return f"1 - {math.floor(round(gap / scale, 6)) * scale:.1e}"


def _cost(value: float | None, *, significant: bool = False) -> str:
    if value is None:
        return "not a number"
    return at_most_significant(value) if significant else at_most(value, 4)


def _rounded(value: float, digits: int, rounding: str) -> str:
    # Twelve digits first: 100 · 9954 / 10000 is a hair away from what it stands for.
    exact = Decimal(repr(round(value, 12)))
    text = format(exact.quantize(Decimal(1).scaleb(-digits), rounding=rounding), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
