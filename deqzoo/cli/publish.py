"""`deqzoo export`: from a run to weights that can be published."""

from pathlib import Path
from typing import Annotated

import typer

from deqzoo.cli import app
from deqzoo.cli.options import BatchSize, Device, Download, Root, chosen_device


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run (its last.ckpt), or a .ckpt.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write.")],
    name: Annotated[str | None, typer.Option(help="Of the model, if other than the run's.")] = None,
    data: Annotated[str | None, typer.Option(help="Test set. Default: that of the model.")] = None,
    root: Root = Path("data"),
    download: Download = False,
    half: Annotated[bool, typer.Option("--half", help="Store float32 weights in float16.")] = False,
    batch_size: BatchSize = 512,
    device: Device = "auto",
    embed: Annotated[
        bool,
        typer.Option(
            "--embed",
            help="For maintainers, in the root of a checkout: also put the weights into the package, note "
            "them in deqzoo/zoo/weights.json, and write model_cards/NAME.md.",
        ),
    ] = False,
) -> None:
    """Package the weights of a run.

    They are stored, read back, evaluated on the whole test set, and described. DEST gets model.safetensors,
    config.json, evaluation.json, certificate.json (where there is one), the run's settings (recipe.yaml) and
    log (metrics.csv), training.svg (with matplotlib) and README.md, the model card. `deqzoo.load` reads it;
    the Hub takes it as it is.
    """
    from deqzoo.benchmark.package import find_run, package
    from deqzoo.data import open_data
    from deqzoo.models import entry
    from deqzoo.zoo.checkpoint import read_checkpoint
    from deqzoo.zoo.embed import embed as put_into_package

    where = chosen_device(device)
    checkpoint = find_run(run)
    dataset = entry(name or read_checkpoint(checkpoint).name).dataset
    images = open_data(data or dataset, root=root, like=dataset, download=download)
    figures = package(
        checkpoint,
        destination,
        data=images,
        name=name,
        half=half,
        device=where,
        batch_size=batch_size,
        progress=True,
    )
    typer.echo(f"{figures['name']}: {figures['accuracy']:.2f} % of {figures['num_images']:,} images, in {destination}")
    if embed:
        put_into_package(destination, cards=Path("model_cards"))
        typer.echo("embedded in the package")
