"""`deqzoo compare`: every pretrained model of a data set side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deqzoo.cli import app
from deqzoo.cli.options import Device, Download, Json, Root, chosen_device


@app.command()
def compare(
    wanted: Annotated[
        str, typer.Argument(metavar="DATASET|PATTERN", help="mnist, cifar10, …, or names with * and ?, as 'pcdeq-*'.")
    ],
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure speed and memory here, of all models in turns.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Test set to measure accuracy on too. Default: the published figures.")
    ] = None,
    root: Root = Path("data"),
    download: Download = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Of speed and memory.")] = 64,
    device: Device = "auto",
    output: Annotated[Path, typer.Option(help="Folder for a CSV and a plot, compare-….csv and .svg.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Compare all pretrained models of a data set.

    Parameters, accuracy with its interval, evaluations, convergence, speed and memory: as published, unless they are to
    be measured.
    """
    from deqzoo.benchmark.compare import chosen_models
    from deqzoo.benchmark.compare import compare as compared
    from deqzoo.benchmark.compare_files import comparison_table, machines, write_comparison
    from deqzoo.data import EmbeddedSample, embedded_samples, open_data
    from deqzoo.models import entry

    where = chosen_device(device)
    names = chosen_models(wanted)
    dataset = entry(names[0]).dataset
    images = None if data is None else open_data(data, root=root, like=dataset, download=download)
    speed_on = images
    if measure and images is None:
        # No sample: the whole set, which has to be there.
        sampled = dataset in embedded_samples()
        speed_on = EmbeddedSample(dataset) if sampled else open_data(dataset, root=root, download=download)
    rows = compared(
        names,
        data=images,
        speed_on=speed_on if measure else None,
        device=where,
        batch_size=batch_size,
        progress=True,
    )
    files = write_comparison(rows, output, name=wanted)
    if as_json:
        models = [row.as_dict() for row in rows]
        typer.echo(json.dumps({"dataset": dataset, "models": models, "files": list(map(str, files))}, allow_nan=False))
        return
    source = "published figures" if images is None else f"{rows[0].num_images:,} test images, measured here"
    typer.echo(f"{len(rows)} models on {dataset} ({source})")
    table = comparison_table(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *cells in table:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        typer.echo("  " + "  ".join([f"{first:<{widths[0]}}", *aligned]))
    typer.echo(machines(rows))
    typer.echo(f"written: {', '.join(map(str, files))}")
