"""Architectures, one file each, and the names of their configurations."""

from deqzoo.models import (
    deq,
    deq_transformer,
    explicit,
    mdeq,
    mdeq_pyramid,
    mondeq,
    neural_ode,
    pcdeq,
    revdeq,
    transformer,
)
from deqzoo.models.input_spec import INPUT_SPECS, InputSpec
from deqzoo.models.registry import ModelEntry, Runtime, TextRuntime, canonical, entries, entry, register

__all__ = [
    "INPUT_SPECS",
    "InputSpec",
    "ModelEntry",
    "Runtime",
    "TextRuntime",
    "canonical",
    "deq",
    "deq_transformer",
    "entries",
    "entry",
    "explicit",
    "mdeq",
    "mdeq_pyramid",
    "mondeq",
    "neural_ode",
    "pcdeq",
    "register",
    "revdeq",
    "transformer",
]
