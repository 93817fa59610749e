"""The command `deqzoo`: words in, words out. What it does lies in the packages below."""

import sys
from importlib import import_module
from typing import Annotated

import typer

from deqzoo.errors import DeqzooError
from deqzoo.version import __version__

app = typer.Typer(
    name="deqzoo",
    help="A zoo of implicit models: look at them, run them, train them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(argv: list[str] | None = None) -> None:
    """Runs a command line, that of the process by default, and exits.

    Errors that deqzoo raises on purpose, values out of range, and files that cannot be read or written become one line
    on stderr and exit code 1; wrong usage has code 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    for verbs in ("browse", "run", "generate", "publish", "weights", "train", "plan", "benchmark", "trace", "compare"):
        import_module(f"deqzoo.cli.{verbs}")
    try:
        app(argv, prog_name="deqzoo")
    except (DeqzooError, ValueError, OSError) as error:
        if argv[:1] == ["--debug"]:
            raise
        typer.echo(f"deqzoo: {error}", err=True)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deqzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...
