"""`deqzoo list | info`: what there is."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from deqzoo.cli import app
from deqzoo.cli.options import Json
from deqzoo.errors import DeqzooError
from deqzoo.models import entry
from deqzoo.zoo import describe, list_models
from deqzoo.zoo.figures import headline
from deqzoo.zoo.manifest import published


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Of names, with * and ?.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only models with weights.")] = False,
    task: Annotated[str | None, typer.Option(help="Only models for it, such as image-classification.")] = None,
    as_json: Json = False,
) -> None:
    """List models, and what is known of their weights."""
    names = list_models(pattern, pretrained=True if pretrained else None, task=task)
    if not names:
        raise DeqzooError(f"No model is called {pattern!r} here. `deqzoo list` shows all {len(list_models())} names.")
    told = [(name, entry(name).dataset, published(name)) for name in names]
    if as_json:
        fields = [{"name": name, "dataset": data, "pretrained": record is not None} for name, data, record in told]
        typer.echo(json.dumps({"models": fields}, indent=2))
        return
    width = max(map(len, names))
    for name, data, record in told:
        typer.echo(f"{name:<{width}}  {headline(record.results) if record else f'no weights yet ({data})'}")


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Of a model, in any spelling.")],
    as_json: Json = False,
) -> None:
    """Describe a model.

    Inputs, size, solver, recipe, weights and their figures.
    """
    found = describe(name)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else str(found))
