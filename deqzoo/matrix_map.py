"""Functions of states as functions of matrices."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from deqzoo.adjoints.autocast import current_autocast
from deqzoo.errors import StructureError
from deqzoo.tree import Layout

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Returns `function`, hidden from `torch.compile`; what it calls may be compiled by itself."""
    return torch.compiler.disable(function)  # pyright: ignore[reportReturnType]


class MatrixMap:
    """f(state, *args) as a map (B, N) -> (B, N), with the tensors among args as its further arguments.

    Whenever it is evaluated, in a backward pass too, f runs under the autocast that was on when this was made.

    Args:
        f: maps a state, and `args`, to a state of the same structure and shapes.
        layout: of the states.
        args: what f gets besides the state; tensors may sit in nests of tuples.
        rule: why f keeps the shape of its state, for messages.

    Attributes:
        tensors: the tensors among `args`, in their order.

    Raises:
        StructureError: at the first evaluation, if f changes the structure or the shapes, or writes into the state.

    """

    def __init__(self, f: Callable[..., Any], layout: Layout, args: tuple[Any, ...], *, rule: str) -> None:
        self._f, self._layout, self._rule = f, layout, rule
        self.tensors, self._rebuild = _split(args)
        self._autocast = current_autocast(layout.device)
        self._checked = False

    def __call__(self, z: Tensor, *tensors: Tensor) -> Tensor:
        if self._checked:
            return self._layout.ravel(self._evaluate(z, tensors))
        # Versions cannot be traced. Writing into a copy does no harm, and compilers drop copies that are only read.
        compiling = torch.compiler.is_compiling()
        version = None if compiling or z.is_inference() else z._version
        value = self._evaluate(z.clone() if compiling else z, tensors)
        if version is not None and z._version != version:
            raise StructureError(
                "`f` wrote into the state that it was given. A state is needed again after f was evaluated there: "
                "look for in-place operations such as `mul_` or `ReLU(inplace=True)` at the beginning of the cell."
            )
        self._layout.check(value, rule=self._rule)
        self._checked = not compiling
        return self._layout.ravel(value)

    def _evaluate(self, z: Tensor, tensors: tuple[Tensor, ...]) -> Any:
        if self._autocast is None:
            return self._f(self._layout.unravel(z), *self._rebuild(tensors))
        with self._autocast:
            return self._f(self._layout.unravel(z), *self._rebuild(tensors))


def _split(args: Any) -> tuple[tuple[Tensor, ...], Callable[[tuple[Tensor, ...]], Any]]:
    """Returns the tensors in nested tuples `args`, and a function that puts others in their places."""
    if isinstance(args, Tensor):
        return (args,), lambda tensors: tensors[0]
    if not isinstance(args, tuple):
        return (), lambda tensors: args
    parts = [_split(part) for part in args]
    sizes = [len(leaves) for leaves, _ in parts]
    if not any(sizes):
        return (), lambda tensors: args

    def rebuild(tensors: tuple[Tensor, ...]) -> Any:
        built, start = [], 0
        for size, (_, rebuild_part) in zip(sizes, parts, strict=True):
            built.append(rebuild_part(tensors[start : start + size]))
            start += size
        return type(args)(*built) if hasattr(args, "_fields") else tuple(built)  # a NamedTuple stays one

    return tuple(leaf for leaves, _ in parts for leaf in leaves), rebuild
