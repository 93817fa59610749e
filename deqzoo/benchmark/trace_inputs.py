"""The input of a trace, from what a user names."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqzoo.benchmark.inputs import input_spec, prepared
from deqzoo.data import EmbeddedSample, open_image
from deqzoo.errors import VocabularyError

_TEXT = "First Citizen:\nBefore we proceed any further, hear me"


def trace_image(model: Any, file: str | None) -> tuple[Tensor, str]:
    """Returns the image (1, C, H, W) in a file, or the first of the sample in the package, and what it is.

    Raises:
        DataError: if the file is missing or no image, or there is no sample of the model's data set.
    """
    if file is not None:
        return model.transform(open_image(Path(file)))[None], Path(file).name
    spec = input_spec(model.net)
    images = EmbeddedSample(spec.dataset).image_set("test")
    return prepared(images.images[:1], spec), f"a {spec.label_names[int(images.labels[0])]} of the sample"


def trace_text(model: Any, text: str | None) -> tuple[Tensor, str]:
    """Returns the tokens (1, T) of a text, of its end where it is longer than the context, and a title.

    Raises:
        VocabularyError: if the text is empty, or has characters that no token stands for.
    """
    text = _TEXT if text is None else text
    ids = model.vocabulary.encode(text)
    if not ids:
        raise VocabularyError(
            f"The text {text!r} has no tokens. A trace is of a prediction from at least one: add a word."
        )
    told = text if len(text) <= 40 else f"…{text[-40:]}"
    return torch.tensor([ids[-model.net.context :]]), f"what follows {told!r}"
