"""Measured figures in words. Rounding never flatters: merits are rounded down, costs up."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from deqzoo.zoo.rounding import at_least, at_least_significant, at_most, at_most_significant, cost, counted
from deqzoo.zoo.solve_figures import Units, converged_share, machine_rows, solve_rows
from deqzoo.zoo.text_figures import TEXT_HEADLINES, UNITS, text_rows

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
    *TEXT_HEADLINES,
)
"""Figures of an evaluation that belong to the weights and not to the machine."""
IMAGES = Units(sample="image", solved="image", judged="image", several=True)


def headlines(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of an evaluation that are kept in config.json."""
    return {key: evaluation[key] for key in HEADLINES if key in evaluation}


def headline(results: Mapping[str, Any]) -> str:
    """Returns the one figure that published weights are known by, and the data that it is of."""
    data = results["data"]
    if results.get("level") == "word":
        return f"{cost(results['perplexity'], 2)} perplexity per word ({data})"
    if "perplexity" in results:
        return f"{cost(results['loss'])} nats per {UNITS[results['level']]} ({data})"
    low, high = at_least(results["accuracy_low"]), at_most(results["accuracy_high"])
    return f"{at_least(results['accuracy'])} % ({low} to {high}, {data})"


def evaluation_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the figures of an evaluation that are there."""
    if "perplexity" in figures:
        return text_rows(figures)
    return [
        (
            "accuracy",
            f"{at_least(figures['accuracy'])} % (95 % interval {at_least(figures['accuracy_low'])} to "
            f"{at_most(figures['accuracy_high'])})",
        ),
        ("loss", cost(figures["loss"])),
        ("calibration error", cost(figures["calibration_error"])),
        *solve_rows(figures, IMAGES),
        *machine_rows(figures, IMAGES),
    ]


def cost_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for the executed operations and the speed in results.json, as far as they are there."""
    flops, speed = results.get("flops"), results.get("speed")
    rows = []
    if flops is not None:
        rows.append(
            (
                "executed operations",
                f"{_mega(flops['mean'])} MFLOPs per image in the mean, p95 {_mega(flops['p95'])} (counted for "
                f"{flops['num_images']:,} images, one at a time)",
            )
        )
    if speed is not None:
        threads = f", {counted(speed['num_threads'], 'thread')}" if speed["kind"] == "cpu" else ""
        rows.append(
            (
                "speed",
                f"{int(speed['images_per_second']):,} images/s in batches of {speed['batch_size']}; one image takes "
                f"{at_most(speed['latency_p50_ms'])} ms, p95 {at_most(speed['latency_p95_ms'])} ms ({speed['device']}"
                f"{threads}, {speed['dtype']})",
            )
        )
    return rows


def radius_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, how much) for spectral radii, equilibria in their order."""
    rows = [
        ("spectral radius, mean", ", ".join(at_most(v, 4) for v in figures["mean"])),
        ("spectral radius, worst image", ", ".join(at_most(v, 4) for v in figures["max"])),
    ]
    if min(figures["settled"]) < 1:
        settled = ", ".join(f"{at_least(100 * v)} %" for v in figures["settled"])
        rows.append(("of images whose radius settled to 0.1 %", settled))
    return rows


def over_tolerances(curve: list[Mapping[str, Any]]) -> bool:
    """Whether budgets differ in tolerance, as those of solvers do that choose their steps by an error."""
    return len({point.get("rtol") for point in curve}) > 1


def curve_rows(curve: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a table, header first, of figures for each budget of the solver."""
    swept = over_tolerances(curve)
    return [
        (
            *(["tolerance"] if swept else []),
            "steps at most",
            "evaluations per image",
            "accuracy",
            "converged",
            "worst residual",
        ),
        *(
            (
                *([f"{point['rtol']:g}"] if swept else []),
                str(point["max_steps"]),
                at_most(point["evals_mean"]),
                f"{at_least(point['accuracy'])} %",
                converged_share(point["converged"]),
                cost(point["residual_max"], significant=True),
            )
            for point in curve
        ),
    ]


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
        *((what, _plain(at_least, at_least_significant, v)) for what, v in figures["at_least"].items()),
        *((what, _plain(at_most, at_most_significant, v)) for what, v in figures["at_most"].items()),
    ]


def _plain(decimal: Callable[[float, int], str], significant: Callable[[float], str], value: float) -> str:
    """Returns a figure to four decimals, or with an exponent where these would say little."""
    return decimal(value, 4) if value == 0 or 1e-2 <= abs(value) < 1e5 else significant(value)


def _mega(flops: float) -> str:
    return at_most(flops / 1e6)


def _rate(value: float) -> str:
    """Returns a rate below 1 rounded up, as its distance from 1 where it is close."""
    gap = 1 - value
    if gap > 1e-3 or gap <= 0:
        return at_most(value, 4)
    scale = 10.0 ** (math.floor(math.log10(gap)) - 1)
    return f"1 - {math.floor(round(gap / scale, 6)) * scale:.1e}"
