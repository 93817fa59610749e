"""Language models from their weights."""

from typing import Any

import torch
from torch import nn

from deqzoo.errors import VocabularyError, WeightsError
from deqzoo.models import ModelEntry
from deqzoo.models.vocabulary import vocabulary_from
from deqzoo.zoo.layout import pretrained_cfg
from deqzoo.zoo.stored import Stored
from deqzoo.zoo.tensors import load_tensors


def restored_text(stored: Stored, found: ModelEntry) -> nn.Module:
    """Returns a language model with its weights and, if it was stored with one, its vocabulary.

    Args:
        stored: the weights.
        found: their configuration.

    Raises:
        WeightsError: if weights, vocabulary and configuration do not fit each other.
    """
    sizes = _sizes(stored)
    with torch.random.fork_rng(devices=[]):
        net: Any = found.build(**sizes)
    load_tensors(net, stored.tensors, stored.origin)
    net.pretrained_cfg = pretrained_cfg(found, net)
    if stored.vocabulary is not None:
        net.pretrained_cfg["vocabulary"] = stored.vocabulary
    return net


def _sizes(stored: Stored) -> dict[str, int]:
    """Returns `vocab_size` of weights, checked before memory is taken for it."""
    cfg = stored.pretrained_cfg or {}
    size: int | None = cfg.get("vocab_size")
    if stored.vocabulary is not None:
        try:
            known = len(vocabulary_from(stored.vocabulary))
        except VocabularyError as error:
            raise WeightsError(f"The vocabulary of the weights in {stored.origin} cannot be used: {error}") from error
        if size not in (None, known):
            raise WeightsError(
                f"The weights in {stored.origin} are said to be for {size:,} tokens, and the vocabulary beside them "
                f"has {known:,}. It belongs to the weights: export or download both again."
            )
        size = known
    if size is None:
        return {}
    if size > sum(len(tensor) for tensor in stored.tensors.values() if tensor.ndim):  # a row for each token
        raise WeightsError(
            f"The weights in {stored.origin} are said to be for {size:,} tokens, and are too few for them. The "
            "vocabulary belongs to the weights: export or download both again."
        )
    return {"vocab_size": size}
