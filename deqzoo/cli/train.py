"""`deqzoo fit | validate | test`: handed on to the training command line, which has options of its own."""

import typer

from deqzoo.cli import app

_UNTOUCHED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_UNTOUCHED, add_help_option=False)
def fit(context: typer.Context) -> None:
    """Train: deqzoo fit -c recipes/NAME.yaml"""
    _hand_on("fit", context)


@app.command(context_settings=_UNTOUCHED, add_help_option=False)
def validate(context: typer.Context) -> None:
    """Evaluate a run on validation images."""
    _hand_on("validate", context)


@app.command(context_settings=_UNTOUCHED, add_help_option=False)
def test(context: typer.Context) -> None:
    """Evaluate a run on its test images."""
    _hand_on("test", context)


def _hand_on(verb: str, context: typer.Context) -> None:
    from deqzoo.cli.training import main

    main([verb, *context.args])
