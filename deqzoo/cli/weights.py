"""`deqzoo download | verify | measure | seeds | card | convert`: what can be done with published weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from deqzoo.cli import app
from deqzoo.cli.options import BatchSize, Device, Download, Json, Name, Root, chosen_device, samples_at_once, whole_set
from deqzoo.models import entry
from deqzoo.models.text_spec import TEXT_GENERATION
from deqzoo.zoo.figures import at_most
from deqzoo.zoo.weights_config import read_config


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, or hf-hub:org/name[@revision].")],
    dest: Annotated[
        Path | None, typer.Option(help="Folder for a copy of each, to be carried elsewhere. Default: the cache alone.")
    ] = None,
) -> None:
    """Fetch weights for later use without a network.

    They are checked against the hashes that come with this version. `deqzoo.load` takes the copies in DEST by their
    path.
    """
    from deqzoo.zoo.download import download as fetch

    for name in names:
        typer.echo(f"{name}: {fetch(name, dest)}")


@app.command()
def verify(
    name: Name,
    data: Annotated[str | None, typer.Option(help="Full test set. Default: the sample in the package.")] = None,
    root: Root = Path("data"),
    fetch: Download = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check that weights are and do what their card says.

    Hashes, loading, accuracy and convergence, certificate. The exit code is 1 if something did not hold.
    """
    from deqzoo.benchmark.verify import verify as check
    from deqzoo.zoo import load
    from deqzoo.zoo.release import release_folder

    where = chosen_device(device)
    found = entry(read_config(release_folder(name)).name)
    images = None if data is None else whole_set(load(name), found.dataset, data, root, fetch)
    at_once = samples_at_once(batch_size, where, text=found.task == TEXT_GENERATION)
    checks = check(name, data=images, device=where, batch_size=at_once, progress=True)
    failed = [c for c in checks if c.verdict == "did not hold"]
    if as_json:
        typer.echo(json.dumps({"name": name, "held": not failed, "checks": [asdict(c) for c in checks]}))
    else:
        rows = [("", "card", "found", ""), *((c.what, c.claimed, c.found, c.verdict) for c in checks)]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    if failed:
        raise typer.Exit(1)


@app.command()
def measure(
    name: Name,
    data: Annotated[str | None, typer.Option(help="Test set. Default: that of the model.")] = None,
    root: Root = Path("data"),
    fetch: Download = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Measure a release again, and write its results.json.

    Of a name, in a checkout: the figures in the package and the model card are replaced.
    """
    from deqzoo.benchmark.package import remeasure

    folder, options = _to_measure(name, data, root, fetch, batch_size, device)
    figures = remeasure(folder, **options)
    model = _write_card_of(folder)
    typer.echo(f"{model}: {at_most(figures['loss'], 4)} nats, written to {folder}")


@app.command()
def seeds(
    name: Name,
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs of the same recipe with other seeds, or their .ckpt.")
    ],
    data: Annotated[str | None, typer.Option(help="Test set. Default: that of the model.")] = None,
    root: Root = Path("data"),
    fetch: Download = False,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> None:
    """Measure runs with other seeds, for the card of a release.

    Its weights stay, and what was measured of them. Of a name, in a checkout: the results in the package and the model
    card are replaced.
    """
    from deqzoo.benchmark.seeds import add_seeds

    folder, options = _to_measure(name, data, root, fetch, batch_size, device)
    for seed in add_seeds(folder, runs, **options):
        typer.echo(", ".join(f"{what} {value:.6g}" for what, value in seed.items() if value is not None))
    _write_card_of(folder)


def _to_measure(
    name: str, data: str | None, root: Path, fetch: bool, batch_size: int | None, device: str
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of a release, and what its measurement takes."""
    from deqzoo.zoo import load
    from deqzoo.zoo.release import release_folder

    where = chosen_device(device)
    folder = release_folder(name)
    found = entry(read_config(folder).name)
    tested = whole_set(load(folder), found.dataset, data, root, fetch)
    at_once = samples_at_once(batch_size, where, text=found.task == TEXT_GENERATION)
    return folder, {"data": tested, "device": where, "batch_size": at_once, "progress": True}


def _write_card_of(folder: Path) -> str:
    """Writes the card of a release, in a checkout that of the model, and returns the model's name."""
    from deqzoo.zoo import manifest
    from deqzoo.zoo.cards import write_card
    from deqzoo.zoo.embed import write_embedded_card
    from deqzoo.zoo.release import CARD_FILE

    name = entry(read_config(folder).name).name
    if folder == manifest.embedded_folder(name):
        write_embedded_card(name, cards=Path("model_cards"))
    else:
        write_card(folder, folder / CARD_FILE, plots=folder)
    return name


@app.command()
def card(name: Name) -> None:
    """Print the card of a model, from its measured results."""
    from deqzoo.zoo.cards import render_card
    from deqzoo.zoo.release import CARD_FILE, release_folder

    folder = release_folder(name)
    typer.echo(render_card(folder, folder / CARD_FILE, plots=folder), nl=False)


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Weights: a name, folder, run, .ckpt, or another project's .pth.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A folder for safetensors, or a file .ckpt.")],
    name: Annotated[str | None, typer.Option(help="Of the model, for another project's file.")] = None,
) -> None:
    """Convert weights between safetensors and Lightning checkpoints.

    State dicts of the published pcDEQ, MDEQ and monDEQ code are read too, where the architecture is the same.
    """
    from deqzoo.zoo.convert import convert as convert_weights

    convert_weights(source, destination, name=name)
    typer.echo(f"{source} -> {destination}")
