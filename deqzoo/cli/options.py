"""Options that several verbs share, and the objects they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from deqzoo.data import ImageData

Name: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A model: its name, a folder of weights, a run, a .ckpt, or hf-hub:org/name."),
]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="mnist, cifar10, … or a folder with test/<class>/; tiny-shakespeare, ptb, … or a text. "
        "Default: a sample in the package."
    ),
]
Root: TypeAlias = Annotated[Path, typer.Option(help="Folder that holds the named data set.")]
Download: TypeAlias = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is missing.")]
BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most images at once (default: 128 on a CPU, 512 elsewhere), or windows of a text (64).",
        show_default=False,
    ),
]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one.")]
MaxSteps: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Budget of the solver.")]
Rtol: TypeAlias = Annotated[
    float | None, typer.Option(min=0, help="Relative tolerance of the solver; 0 spends the whole budget.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one object of JSON on stdout.")]


def chosen_device(name: str) -> str:
    """Returns the name of a device that torch can use; exits with usage code 2 if there is none of that name."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r} cannot be used here: {reason}", param_hint="--device") from error
    return name


def is_text(model: Any) -> bool:
    """Whether a model of `load` is a language model."""
    from deqzoo.tasks import LanguageModel

    return isinstance(model, LanguageModel)


def samples_at_once(batch_size: int | None, device: str, *, text: bool = False) -> int:
    """Returns the batch size that was asked for, or one that suits the device of that name: for images, or for text."""
    if batch_size is not None:
        return batch_size
    if text:
        return 64
    # Larger batches outgrow the caches of a CPU, and multiscale networks get slower.
    return 128 if device.partition(":")[0] == "cpu" else 512


def require_images(model: Any) -> None:
    """Exits with usage code 2 for a language model."""
    if is_text(model):
        raise typer.BadParameter(
            "This is a language model, and the verb is for images. Use `deqzoo eval` and `deqzoo generate`.",
            param_hint="NAME",
        )


def chosen_data(model: Any, data: str | None, root: Path, download: bool) -> tuple["ImageData", str]:
    """Returns the data module that the options mean, and its name: the embedded sample if `data` is None."""
    from deqzoo.data import EmbeddedSample, open_data

    require_images(model)
    dataset = model.net.pretrained_cfg["tag"]
    if data is None:
        return EmbeddedSample(dataset), f"{dataset}-sample"
    opened = open_data(data, root=root, like=dataset, download=download)
    return opened, opened.spec.dataset


def whole_set(model: Any, dataset: str, data: str | None, root: Path, download: bool) -> Any:
    """Returns the data module of a whole test set: that of the model's own data set if `data` is None."""
    from deqzoo.data import open_data, open_text

    if is_text(model):
        return open_text(data or dataset, root=root, like=dataset, vocabulary=model.vocabulary)
    return open_data(data or dataset, root=root, like=dataset, download=download)
