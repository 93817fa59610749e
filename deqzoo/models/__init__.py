"""Architectures, one file each, and the names of their configurations."""

from deqzoo.models import mdeq, pcdeq
from deqzoo.models.input_spec import INPUT_SPECS, InputSpec
from deqzoo.models.registry import ModelEntry, Runtime, canonical, entries, entry, register

__all__ = [
    "INPUT_SPECS",
    "InputSpec",
    "ModelEntry",
    "Runtime",
    "canonical",
    "entries",
    "entry",
    "mdeq",
    "pcdeq",
    "register",
]
