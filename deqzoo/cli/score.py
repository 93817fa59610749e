"""`deqzoo eval` for language models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

if TYPE_CHECKING:
    from deqzoo.tasks import LanguageModel


def scored(
    model: "LanguageModel",
    *,
    data: str | None,
    root: Path,
    split: str | None,
    stride: int | None,
    batch_size: int,
    device: str,
) -> tuple[dict[str, Any], str]:
    """Returns the figures of a language model on a text, and a title for them.

    A file is scored whole, a named text in the part that published figures are on, the text in the package whole:
    unless `split` says otherwise.
    """
    from deqzoo.benchmark.evaluate_text import evaluate_text
    from deqzoo.data import TEXTS, open_text
    from deqzoo.data.text_files import Part
    from deqzoo.models.text_spec import TEXT_SPECS

    net: Any = model.net
    text = open_text(data, root=root, like=net.pretrained_cfg["tag"], vocabulary=model.vocabulary)
    usual = TEXT_SPECS[text.title].split if data is None or text.title in TEXTS else "all"
    part: Any = split or usual
    if part not in get_args(Part):
        raise typer.BadParameter(f"{split!r} is none of {', '.join(get_args(Part))}.", param_hint="--split")
    if stride is not None and not 1 <= stride <= net.context:
        raise typer.BadParameter(f"{stride} is not from 1 to the context, {net.context}.", param_hint="--stride")
    figures = evaluate_text(
        model, text, split=part, stride=stride, device=device, batch_size=batch_size, progress=True
    ).as_dict()
    where = f"{figures['num_tokens']:,} tokens ({figures['level']} level)"
    if data is None:
        return figures, f"on the part {part!r} of {text.title}, which is in the package: {where}"
    return figures, f"on {text.title}{'' if part == 'all' else f', part {part!r}'}: {where}"
