"""`deqzoo export | publish`: from a run to a release, and from a release to the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqzoo.cli import app
from deqzoo.cli.options import (
    BatchSize,
    Device,
    Download,
    Name,
    Root,
    chosen_device,
    is_text,
    samples_at_once,
    whole_set,
)

if TYPE_CHECKING:
    from deqzoo.benchmark.publish import Publication


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run (its last.ckpt), or a .ckpt.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write.")],
    name: Annotated[str | None, typer.Option(help="Of the model, if other than the run's.")] = None,
    data: Annotated[str | None, typer.Option(help="Test set. Default: that of the model.")] = None,
    root: Root = Path("data"),
    download: Download = False,
    other_seed: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="A run of the same recipe with another seed, for the card. May be repeated."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float32 weights in float16.")] = False,
    batch_size: BatchSize = None,
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

    They are stored, read back, measured on the whole test set, and described. DEST gets model.safetensors,
    config.json, results.json, the run's settings (recipe.yaml) and log (metrics.csv), plots (with matplotlib) and
    README.md, the model card. A table tried.csv in RUN, of what was compared before, and paragraphs remarks.txt, of
    what else a reader should know, go into the card. `deqzoo.load` reads DEST; `deqzoo publish` sends it to the Hub.
    """
    from deqzoo.benchmark.package import package
    from deqzoo.models import entry
    from deqzoo.zoo import load
    from deqzoo.zoo.checkpoint import find_run, read_checkpoint
    from deqzoo.zoo.embed import embed as put_into_package

    where = chosen_device(device)
    checkpoint = find_run(run)
    dataset = entry(name or read_checkpoint(checkpoint).name).dataset
    model = load(checkpoint)
    figures = package(
        checkpoint,
        destination,
        data=whole_set(model, dataset, data, root, download),
        name=name,
        half=half,
        other_seeds=other_seed or (),
        device=where,
        batch_size=samples_at_once(batch_size, where, text=is_text(model)),
        progress=True,
    )
    told = (
        f"{figures['loss']:.4f} nats per token ({figures['level']} level), {figures['num_tokens']:,} tokens"
        if is_text(model)
        else f"{figures['accuracy']:.2f} % of {figures['num_images']:,} images"
    )
    typer.echo(f"{figures['name']}: {told}, in {destination}")
    if embed:
        put_into_package(destination, cards=Path("model_cards"))
        typer.echo("embedded in the package")


@app.command()
def publish(
    source: Name,
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Where to; made if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository that only you see.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to. Default: main.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name of the release. Default: the next free of v1, v2, …")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Assemble and check, but send nothing.")] = False,
    data: Annotated[str | None, typer.Option(help="Test set, to measure a run. Default: that of the model.")] = None,
    root: Root = Path("data"),
    download: Download = False,
    device: Device = "auto",
) -> None:
    """Publish a model on the Hugging Face Hub.

    A release is assembled, loaded back and checked: equal logits, and the accuracy of its card on the sample in the
    package. Then it is sent in one commit, and tagged.
    """
    from deqzoo.benchmark.publish import publish as publish_model
    from deqzoo.models import entry
    from deqzoo.zoo import load
    from deqzoo.zoo.stored import open_stored

    where = chosen_device(device)
    dataset = entry(open_stored(source).name).dataset
    done = publish_model(
        source,
        repo,
        private=private,
        revision=revision,
        tag=tag,
        dry_run=dry_run,
        data=whole_set(load(source), dataset, data, root, download),
        device=where,
        progress=True,
        show=_show,
    )
    if done.commit is None:
        typer.echo("checked; nothing was sent (--dry-run)")
        return
    typer.echo(f"{done.name} is in {repo} at {done.commit[:12]}, as release {done.tag}")
    typer.echo(f"  {done.load_line}")


def _show(planned: "Publication") -> None:
    width = max(len(name) for name, _ in planned.files)
    for name, size in planned.files:
        typer.echo(f"  {name:<{width}}  {size:>12,} bytes")
    total = sum(size for _, size in planned.files)
    typer.echo(f"  {'in all':<{width}}  {total:>12,} bytes, checked, for {planned.repo}")
