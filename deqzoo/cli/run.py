"""`deqzoo eval | predict | certify`: what a model does."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deqzoo.cli import app
from deqzoo.cli.options import (
    BatchSize,
    Data,
    Device,
    Download,
    Json,
    MaxSteps,
    Name,
    Root,
    Rtol,
    chosen_data,
    chosen_device,
    is_text,
    require_images,
    samples_at_once,
)
from deqzoo.zoo import load
from deqzoo.zoo.figures import at_least, certificate_rows, evaluation_rows


@app.command("eval")
def eval_(
    name: Name,
    data: Data = None,
    root: Root = Path("data"),
    download: Download = False,
    split: Annotated[
        str | None, typer.Option(help="Of a text: train, val, test or all. Default: all of a file, else the usual one.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens between windows of a text. Default: its context, no overlap.")
    ] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    max_steps: MaxSteps = None,
    rtol: Rtol = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Measure at budgets of 1, 2, 4, … steps; write sweep.csv and sweep.svg.")
    ] = False,
    rtols: Annotated[
        list[float] | None, typer.Option("--sweep-rtol", min=0, help="Also sweep this tolerance; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the files of --sweep.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Measure a model on a test set.

    Accuracy, calibration, convergence and speed; of a language model, loss, perplexity and bits per character.
    """
    where = chosen_device(device)
    model: Any = load(name, max_steps=max_steps, rtol=rtol)
    at_once = samples_at_once(batch_size, where, text=is_text(model))
    if is_text(model):
        from deqzoo.cli.score import scored

        if sweep or rtols:
            raise typer.BadParameter("Only image classifiers are swept.", param_hint="--sweep")
        if download:
            raise typer.BadParameter("Texts are not fetched: put the files below --root.", param_hint="--download")
        figures, title = scored(
            model, data=data, root=root, split=split, stride=stride, batch_size=at_once, device=where
        )
        if as_json:
            typer.echo(json.dumps({"name": name, **figures}, allow_nan=False))
            return
        typer.echo(f"{name} {title}")
        _show(evaluation_rows(figures))
        return
    if split is not None or stride is not None:
        raise typer.BadParameter("Only texts are split and read in windows.", param_hint="--split, --stride")
    images, called = chosen_data(model, data, root, download)
    if sweep or rtols:
        from deqzoo.benchmark.sweep import sweep as measure
        from deqzoo.benchmark.sweep import sweep_table, write_sweep

        points = measure(
            model,
            images,
            budgets=None if sweep else (),
            rtols=rtols or (),
            device=where,
            batch_size=at_once,
            progress=True,
        )
        files = write_sweep(points, output)
        if as_json:
            typer.echo(json.dumps({"name": name, "data": called, "points": points}, allow_nan=False))
            return
        typer.echo(_title(name, points[0]["num_images"], images.spec.dataset, sample=data is None))
        _show_table(sweep_table(points))
        typer.echo(f"written: {', '.join(map(str, files))}")
        return
    from deqzoo.benchmark.evaluate import evaluate

    figures = evaluate(model, images, device=where, batch_size=at_once, progress=True).as_dict()
    figures = {"name": name, **figures, "data": called}
    if as_json:
        typer.echo(json.dumps(figures, allow_nan=False))
        return
    typer.echo(_title(name, figures["num_images"], images.spec.dataset, sample=data is None))
    _show(evaluation_rows(figures))


@app.command()
def predict(
    name: Name,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE]...", help="Files. Default: a sample in the package."),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Classes to name.")] = 3,
    count: Annotated[int, typer.Option(min=1, help="Images of the sample, where no files are given.")] = 10,
    device: Device = "auto",
    max_steps: MaxSteps = None,
    rtol: Rtol = None,
    as_json: Json = False,
) -> None:
    """Classify images.

    Each prediction says what its equilibrium cost and whether it was found.
    """
    where = chosen_device(device)
    model: Any = load(name, max_steps=max_steps, rtol=rtol).to(where)
    require_images(model)
    from deqzoo.benchmark.predict import predict_files, predict_sample

    found = predict_files(model, images, top_k=top_k) if images else predict_sample(model, count, top_k=top_k)
    if as_json:
        predictions = [{"source": source, **p.as_dict()} for source, p in found]
        typer.echo(json.dumps({"name": name, "predictions": predictions}, allow_nan=False))
        return
    if not images:
        typer.echo(f"{len(found)} images of the sample in the package; name files to see your own.")
    for source, p in found:
        shares = zip(p.labels, p.probabilities, strict=True)
        said = ", ".join(f"{label} {at_least(100 * share, 1)} %" for label, share in shares)
        solved = "" if p.status is None else f"  [{p.evals} evaluations, {p.status.describe()}]"
        typer.echo(f"{source}: {said or 'no prediction, its logits are not finite'}{solved}")


@app.command()
def certify(
    name: Name,
    data: Data = None,
    root: Root = Path("data"),
    download: Download = False,
    rtol: Annotated[float, typer.Option(help="Relative tolerance that bounds on iterations are for.")] = 1e-4,
    max_images: Annotated[int, typer.Option(min=1, help="The most to look at.")] = 1000,
    as_json: Json = False,
) -> None:
    """Prove and bound convergence.

    The equilibria of pcDEQ, monDEQ and DEQ models exist, are unique, and are reached at a known rate.
    """
    if not 0 < rtol < 1:
        raise typer.BadParameter(f"{rtol} is not between 0 and 1.", param_hint="--rtol")
    model = load(name)
    images, called = chosen_data(model, data, root, download)
    from deqzoo.benchmark.certify import certify

    figures = certify(model, images, rtol=rtol, max_images=max_images, progress=True).as_dict()
    figures = {"name": name, **figures, "data": figures["data"] and called}
    if as_json:
        typer.echo(json.dumps(figures, allow_nan=False))
        return
    if figures["num_images"] is None:
        typer.echo(f"{name}, whatever the image")
    else:
        typer.echo(_title(name, figures["num_images"], images.spec.dataset, sample=data is None))
    _show([*certificate_rows(figures), ("unique equilibria", "yes" if figures["unique"] else "not proved")])
    if figures["estimated"]:
        typer.echo("  rates and figures are estimates, no bounds")
    typer.echo(f"  {figures['guarantee'] or 'Nothing is certain whatever the weights.'}")


def _title(name: str, num_images: int, dataset: str, *, sample: bool) -> str:
    if sample:
        return (
            f"{name} on the sample of {dataset} in the package, {num_images} of its test images "
            f"(all of them: --data {dataset} --root DIR)"
        )
    return f"{name} on {num_images:,} test images of {dataset}"


def _show(rows: list[tuple[str, str]]) -> None:
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        typer.echo(f"  {key:<{width}}  {value}")


def _show_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
