"""Compiling what is evaluated over and over."""

import inspect
from typing import Any

import torch
import torch._functorch.config
from torch import nn

from deqzoo.nn.solving_module import equilibria

# One map is met with and without a graph, with weights that are computed and cached ones, and in several sizes. torch
# counts the versions of all maps of a class as one, and beyond eight of them silently goes on in eager mode; newer ones
# can tell maps apart.
_APART = {"isolate_recompiles": True, "recompile_limit": 32}
_KNOWN = inspect.signature(torch.compile).parameters


def compile_cells(net: nn.Module, **options: Any) -> None:
    """Compiles the map, or the field, of every equation that `net` solves; solvers stay as they are.

    It is done in place: names of parameters do not change, and copies and pickles are not compiled. A shape that has
    not been met is compiled when it comes, which takes a minute or so; batches of one size are best. A second
    derivative through a compiled map does not exist: leave maps as they are for penalties on their Jacobian.

    Args:
        net: is changed.
        **options: of `torch.compile`.

    Raises:
        ValueError: if `net` solves nothing.

    """
    found = equilibria(net)
    if not found:
        raise ValueError(f"{type(net).__name__} has no equilibrium, whose map could be compiled: use torch.compile.")
    # An implicit backward pass goes through the graph of one evaluation again and again, so that no buffer may be given
    # away; torch asks for this switch in words, and has it for the whole process only.
    torch._functorch.config.donated_buffer = False
    for module in found.values():
        for inner in module.children():
            inner.compile(**{k: v for k, v in _APART.items() if k in _KNOWN} | options)
