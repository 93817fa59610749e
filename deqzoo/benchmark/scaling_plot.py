"""Weak scaling as a figure."""

from pathlib import Path
from typing import Any

from deqzoo.benchmark.scaling import Cluster, StepCost, efficiency
from deqzoo.zoo.svg import BLUE, RED, write_svg

GPUS = tuple(2**i for i in range(11))


def own_step(made: dict[str, Any]) -> StepCost:
    """Returns the step of a plan at the recipe's own budget, on one of the devices that are planned for."""
    [own] = [row for row in made["budgets"] if row["factor"] == 1]
    return StepCost(
        seconds=own["step_seconds"] * own["efficiency"],
        backward=own["backward"],
        gradient_bytes=made["gradient_bytes"],
    )


def curve(cost: StepCost, cluster: Cluster) -> list[dict[str, float]]:
    """Returns the efficiency of 1 to 1,024 devices."""
    return [{"gpus": gpus, "efficiency": efficiency(cost, gpus, cluster)} for gpus in GPUS]


def write_curve(path: Path, made: dict[str, Any], cluster: Cluster) -> None:
    """Draws the efficiency of a plan's step, and of one ten times as fast: the model's answer to a better device."""
    cost = own_step(made)
    fast = StepCost(seconds=cost.seconds / 10, backward=cost.backward, gradient_bytes=cost.gradient_bytes)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for step, colour, label in ((cost, BLUE, "step"), (fast, RED, "step ten times as fast")):
            points = curve(step, cluster)
            share = [100 * point["efficiency"] for point in points]
            axes.plot(GPUS, share, "o-", color=colour, markersize=3, label=f"{label}: {step.seconds:.3g} s")
        axes.set_xscale("log", base=2)
        axes.set_xticks(GPUS)
        axes.set_ylim(0, 105)
        axes.set_xlabel("devices")
        axes.set_ylabel("efficiency / %")
        axes.set_title(f"{made['recipe']}: weak scaling, a model", fontsize=9)
        axes.legend(frameon=False)

    write_svg(path, draw, size=(5.0, 3.0))
