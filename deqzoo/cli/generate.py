"""`deqzoo generate`: what a language model writes."""

import warnings
from typing import Annotated, Any

import typer

from deqzoo.cli import app
from deqzoo.cli.options import Device, MaxSteps, Name, Rtol, chosen_device, is_text
from deqzoo.errors import UnconvergedWarning
from deqzoo.zoo import load
from deqzoo.zoo.rounding import counted


@app.command()
def generate(
    name: Name,
    prompt: Annotated[str, typer.Argument(help="A text to go on with.")],
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Tokens to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1 likely tokens become likelier; 0 always takes the likeliest.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among so many of the likeliest tokens.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Choose among the likeliest tokens that together have this probability."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choices.")] = 0,
    device: Device = "auto",
    max_steps: MaxSteps = None,
    rtol: Rtol = None,
) -> None:
    """Go on with a text.

    The prompt is printed, and then token after token as they are found.
    """
    where = chosen_device(device)
    if top_p == 0:
        raise typer.BadParameter("0 leaves no token to choose: use 0.9, say.", param_hint="--top-p")
    model: Any = load(name, max_steps=max_steps, rtol=rtol).to(where)
    if not is_text(model):
        raise typer.BadParameter(
            f"{name} is no language model. `deqzoo list --task text-generation` names those.", param_hint="NAME"
        )
    pieces = model.stream(
        prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UnconvergedWarning)
        first = next(pieces, "")  # before anything is printed: what is wrong with the prompt shows here
        typer.echo(prompt + first, nl=False)
        for piece in pieces:
            typer.echo(piece, nl=False)
        typer.echo()
    missed = sum(issubclass(warning.category, UnconvergedWarning) for warning in seen)
    if missed:
        told = f"deqzoo: {counted(missed, 'solve')} did not reach the tolerance: raise --max-steps or loosen --rtol."
        typer.echo(told, err=True)
