"""`deqzoo list | info`: what there is."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from deqzoo.cli import app
from deqzoo.zoo import describe, list_models


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Of names, with * and ?.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only models with weights.")] = False,
    task: Annotated[str | None, typer.Option(help="Only models for it, such as image-classification.")] = None,
) -> None:
    """List the names of models."""
    for name in list_models(pattern, pretrained=True if pretrained else None, task=task):
        typer.echo(name)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Of a model, in any spelling.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a model.

    Inputs, size, solver, recipe, weights and their figures.
    """
    found = describe(name)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))
