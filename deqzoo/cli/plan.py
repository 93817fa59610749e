"""`deqzoo plan`: what a recipe would take on many devices."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deqzoo.cli import app

_GIB, _MIB = 2**30, 2**20


@app.command()
def plan(
    recipe: Annotated[Path, typer.Option("--config", "-c", help="A recipe.", exists=True, dir_okay=False)],
    gpus: Annotated[int, typer.Option(min=1, help="Devices to plan for.")] = 8,
    per_node: Annotated[int, typer.Option(min=1, help="Devices of a machine.")] = 8,
    measure_batch: Annotated[
        int | None, typer.Option(min=1, help="Samples per step to measure with. Default: the recipe's.")
    ] = None,
    factor: Annotated[
        list[float] | None, typer.Option(min=0.01, help="Measure at this multiple of the solver's budget; repeatable.")
    ] = None,
    device_factor: Annotated[
        float, typer.Option(min=0.001, help="How many times as fast as this device those are that are planned for.")
    ] = 1.0,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the backward pass that hides communication.")
    ] = 0.0,
    within: Annotated[float, typer.Option(min=0.001, help="GB/s of a device to others in its machine.")] = 300.0,
    between: Annotated[float, typer.Option(min=0.001, help="GB/s of a device to other machines.")] = 40.0,
    samples: Annotated[int | None, typer.Option(min=1, help="Training samples, of data that is not known.")] = None,
    curve: Annotated[Path | None, typer.Option(help="Write weak scaling to 1,024 devices here, as SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object of JSON on stdout.")] = False,
) -> None:
    """Measure a few steps of a recipe here, and estimate its whole run on many devices.

    The steps are real, on noise: memory and time are measured for several budgets of the solver. The rest is a model,
    whose assumptions are printed with it.
    """
    from deqzoo.benchmark.planning import make_plan
    from deqzoo.benchmark.scaling import Cluster

    cluster = Cluster(per_node=per_node, within=within * 1e9, between=between * 1e9, overlap=overlap)
    made = make_plan(
        recipe,
        gpus=gpus,
        cluster=cluster,
        measure_batch=measure_batch,
        factors=tuple(factor or (0.5, 1.0, 2.0)),
        device_factor=device_factor,
        samples=samples,
        train=_train,
    )
    if curve is not None:
        from deqzoo.benchmark.scaling_plot import write_curve

        write_curve(curve, made, cluster)
    if as_json:
        typer.echo(json.dumps(made, allow_nan=False))
        return
    _show(made)


def _train(recipe: Path, measure: Any) -> Any:
    from deqzoo.cli.training import main

    return main(["fit", "-c", str(recipe)], callbacks=[measure])


def _show(made: dict[str, Any]) -> None:
    typer.echo(f"{made['recipe']} on {made['gpus']} devices, {made['batch_size']} samples each per step")
    typer.echo(f"  measured here: {made['device']}, batches of {made['measured_batch']}, synthetic data\n")
    head = ("budget", "step here", "memory", "step there", "waiting", "run", "GPU hours")
    rows: list[tuple[str, ...]] = [head]
    for row in made["budgets"]:
        rows.append(
            (
                str(row["max_steps"]) if row["max_steps"] else "none",
                f"{row['seconds']:.3g} s",
                f"{row['device_bytes'] / _GIB:.2f} GiB",
                f"{row['step_seconds']:.3g} s",
                f"{100 * (1 - row['efficiency']):.1f} %",
                f"{row['hours']:,.1f} h",
                f"{row['gpu_hours']:,.0f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        typer.echo("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    typer.echo(
        f"\n  {made['steps']:,} steps. Each sends {made['sent_bytes'] / _MIB:,.0f} MiB per device: "
        f"{made['gradient_bytes'] / _MIB:,.0f} MiB of gradients, {made['bytes_per_gflop']:.3g} bytes per GFLOP."
    )
    typer.echo("\nAssumed:")
    for assumption in made["assumptions"]:
        typer.echo(f"  - {assumption}")
