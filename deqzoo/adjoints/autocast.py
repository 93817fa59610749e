"""Keeping autocast to the cell, and out of the arithmetic of solvers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def current_autocast(device: torch.device) -> torch.autocast | None:
    """Returns a context like the autocast that is on for `device`, None where there is none."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind))


def exact_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context without autocast: histories and small systems want all the digits they are stored with."""
    return torch.autocast(device.type, enabled=False) if current_autocast(device) else nullcontext()


@contextmanager
def fresh_casts() -> Iterator[None]:
    """A context in which weights are cast anew: casts that autocast has cached belong to other graphs."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
