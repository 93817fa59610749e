"""`deqzoo benchmark`: networks side by side."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from deqzoo.cli import app
from deqzoo.cli.options import BatchSize, Device, Download, Root, chosen_device, samples_at_once

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Names, folders, runs, .ckpt, hf-hub:org/name; timm:NAME, with weights of a file as timm:NAME@FILE.",
    ),
]
TestData = Annotated[
    str, typer.Option(help="mnist, cifar10, … or a folder with test/<class>/; mnist-sample, … for that in the package.")
]
Like = Annotated[
    str | None, typer.Option(help="Of a folder: the data set whose size, normalisation and labels its images have.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Few images and repeats, for a look.")]


@app.command()
def benchmark(
    models: Models,
    data: TestData,
    root: Root = Path("data"),
    like: Like = None,
    download: Download = False,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Of throughput (default: 128); may be repeated.")
    ] = None,
    train: Annotated[bool, typer.Option(help="Whether to measure training steps.")] = True,
    quick: Quick = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's own choice.")] = None,
    device: Device = "auto",
    output: Annotated[Path, typer.Option(help="Folder for JSON, CSV, Markdown and plots.")] = Path("."),
) -> None:
    """Compare networks on the same images, implicit ones and those of timm.

    Accuracy with its interval, calibration, parameters, operations that are executed, latency, throughput, memory,
    training steps. All networks take turns in one run; implicit ones are also measured at other budgets.
    """
    import torch

    from deqzoo.benchmark.board import measure_board
    from deqzoo.benchmark.board_files import board, board_rows, ratios, title, write_board
    from deqzoo.benchmark.board_speed import QUICK, Effort
    from deqzoo.benchmark.opened_images import FEW, open_test_images
    from deqzoo.benchmark.subjects import open_subject

    where = torch.device(chosen_device(device))
    if threads is not None:
        torch.set_num_threads(threads)
    images = open_test_images(data, root=root, like=like, download=download, limit=FEW if quick else None)
    effort = dataclasses.replace(QUICK if quick else Effort(), train=train)
    if batch_size:
        effort = dataclasses.replace(effort, batch_sizes=tuple(sorted(set(batch_size))))
    subjects = [open_subject(name, images.spec) for name in dict.fromkeys(models)]
    entries = measure_board(subjects, images, effort, device=where, progress=True)
    found = board(entries, data=_called(data), device=where, quick=quick)
    files = write_board(found, output)
    typer.echo(title(found["header"]) + "\n")
    head, *rows = board_rows(found)
    for row in rows:
        typer.echo(row[0])
        for what, value in zip(head[1:], row[1:], strict=True):
            if value:
                typer.echo(f"  {what:<{max(map(len, head))}}  {value}")
    for line in ratios(found):
        typer.echo(line)
    typer.echo(f"written: {', '.join(map(str, files))}")


@app.command()
def corruptions(
    models: Models,
    data: TestData,
    root: Root = Path("data"),
    like: Like = None,
    download: Download = False,
    corruption: Annotated[
        list[str] | None, typer.Option(help="gaussian-noise, blur, jpeg, … (default: all); may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the corruptions.")] = 0,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="The most to look at, drawn at random (default: all of them).")
    ] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    output: Annotated[Path, typer.Option(help="Folder for JSON, CSV, Markdown and plot.")] = Path("."),
) -> None:
    """Measure networks on corrupted images: noise, blur, contrast, JPEG and more, at five severities.

    Accuracy, convergence and evaluations: does an implicit network think longer on harder images?
    """
    import torch

    from deqzoo.benchmark.board_files import header, stem
    from deqzoo.benchmark.corruptions import CORRUPTIONS
    from deqzoo.benchmark.opened_images import open_test_images
    from deqzoo.benchmark.robustness import trials_markdown, try_corruptions, write_trials
    from deqzoo.benchmark.subjects import open_subject

    kinds = tuple(dict.fromkeys(corruption or CORRUPTIONS))
    unknown = [kind for kind in kinds if kind not in CORRUPTIONS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(CORRUPTIONS)}.", param_hint="--corruption")
    where = torch.device(chosen_device(device))
    images = open_test_images(data, root=root, like=like, download=download, limit=max_images)
    subjects = [open_subject(name, images.spec) for name in dict.fromkeys(models)]
    trials = try_corruptions(
        subjects,
        images,
        kinds=kinds,
        seed=seed,
        device=where,
        batch_size=samples_at_once(batch_size, where.type),
        progress=True,
    )
    called = _called(data) + ("" if max_images is None else f", {len(images.image_set('test'))} images")
    told = header(called, where, quick=False) | {"seed": seed}
    files = write_trials(trials, told, output, stem(told, "corruptions"))
    typer.echo(trials_markdown([dataclasses.asdict(trial) for trial in trials]))
    typer.echo(f"written: {', '.join(map(str, files))}")


def _called(data: str) -> str:
    """Returns the name of a data set, or of its folder."""
    return Path(data).resolve().name if Path(data).is_dir() else data
