"""`deqzoo trace`: a picture of one solve."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deqzoo.cli import app
from deqzoo.cli.options import Device, Json, MaxSteps, Name, Rtol, chosen_device, is_text
from deqzoo.zoo import load
from deqzoo.zoo.svg import require_drawing


@app.command()
def trace(
    name: Name,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE|TEXT]", help="An image file, or the text for a language model. Default: from the package."
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to follow.")] = 4,
    device: Device = "auto",
    max_steps: MaxSteps = None,
    rtol: Rtol = None,
    output: Annotated[Path, typer.Option(help="The picture, an SVG.")] = Path("trace.svg"),
    as_json: Json = False,
) -> None:
    """Draw how one input comes to its equilibrium.

    Residuals of several solvers step by step, predictions as the state settles, and what the equilibrium looks like.
    """
    from dataclasses import asdict

    from deqzoo.benchmark.trace import trace as follow
    from deqzoo.benchmark.trace_inputs import trace_image, trace_text
    from deqzoo.benchmark.trace_plot import draw_trace

    require_drawing()
    where = chosen_device(device)
    model: Any = load(name, max_steps=max_steps, rtol=rtol).to(where)
    inputs, title = trace_text(model, source) if is_text(model) else trace_image(model, source)
    found = follow(model, inputs.to(where), top_k=top_k)
    draw_trace(found, output, title=f"{name}: {title}")
    if as_json:
        import json

        paths = [asdict(path) for path in found.paths]
        told = {"name": name, "rtol": found.rtol, "classes": found.classes, "paths": paths, "picture": str(output)}
        typer.echo(json.dumps(told, allow_nan=False))
        return
    for path in found.paths:
        end = path.moments[-1]
        likeliest = found.classes[max(range(len(found.classes)), key=lambda i: end.probabilities[i])]
        typer.echo(f"{path.solver}: {end.evals} evaluations, {path.outcome}; predicts {likeliest}")
    typer.echo(f"written: {output}")
