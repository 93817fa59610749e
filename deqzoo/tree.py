"""States as nests of tuples of tensors, and as the (B, N) matrices that solvers work on.

This is the one place where structures meet matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, Union

import torch
from torch import Tensor

from deqzoo.errors import StructureError

State: TypeAlias = Union[Tensor, tuple["State", ...]]  # noqa: UP007 (`|` cannot name itself)


def leaves(state: State) -> Iterator[Tensor]:
    """Yields the tensors of `state`, depth first.

    Raises:
        StructureError: if anything but tensors and tuples is met.

    """
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from leaves(part)
    else:
        raise StructureError(
            f"Found {type(state).__name__} in a state. A state is a tensor or a nest of tuples of tensors: "
            "turn lists into tuples and wrap numbers in tensors."
        )


def detached(state: State) -> State:
    """Returns `state` without its graph."""
    return state.detach() if isinstance(state, Tensor) else tuple(detached(part) for part in state)


def _shape(state: State) -> object:
    return tuple(state.shape) if isinstance(state, Tensor) else tuple(_shape(part) for part in state)


def _is_channels_last(leaf: Tensor) -> bool:
    # A contiguous tensor wins ties (one channel, or 1x1 maps), as its rows are then plain views.
    return leaf.ndim == 4 and not leaf.is_contiguous() and leaf.is_contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    shape: torch.Size  # without the batch
    channels_last: bool

    @property
    def size(self) -> int:
        return self.shape.numel()

    def ravel(self, leaf: Tensor) -> Tensor:
        if self.channels_last:
            leaf = leaf.permute(0, 2, 3, 1)
        # Not -1: the size of an empty batch cannot be inferred.
        return leaf.reshape(leaf.shape[0], self.size)

    def unravel(self, rows: Tensor) -> Tensor:
        if self.channels_last:
            channels, height, width = self.shape
            return rows.view(rows.shape[0], height, width, channels).permute(0, 3, 1, 2)
        return rows.view(rows.shape[0], *self.shape)


class Layout:
    """The correspondence between states of one structure and matrices (B, N).

    Channels-last leaves are laid out with their channels innermost, so that neither direction copies a
    single-leaf state and the memory format survives the round trip.

    Args:
        state: a tensor (B, ...) or nest of tuples of such tensors, of one floating dtype, device and B.

    Raises:
        StructureError: if the leaves disagree in batch size, dtype or device, or cannot form a state.

    """

    def __init__(self, state: State) -> None:
        flat = list(leaves(state))
        if not flat:
            raise StructureError("The state is an empty tuple. A state needs at least one tensor of shape (B, ...).")
        first = flat[0]
        for i, leaf in enumerate(flat):
            if leaf.ndim == 0:
                raise StructureError(
                    f"Leaf {i} of the state is a scalar. States carry a batch dimension first: "
                    "give it the shape (B, ...), with B = 1 for a single problem."
                )
            if not leaf.is_floating_point():
                raise StructureError(
                    f"Leaf {i} of the state has dtype {leaf.dtype}. Solvers work in floating point: "
                    "convert the initial state with `.float()`."
                )
            if (leaf.shape[0], leaf.dtype, leaf.device) != (first.shape[0], first.dtype, first.device):
                raise StructureError(
                    f"Leaf {i} of the state has batch {leaf.shape[0]}, {leaf.dtype} on {leaf.device}, leaf 0 has "
                    f"batch {first.shape[0]}, {first.dtype} on {first.device}. All leaves of a state share one batch "
                    "size, dtype and device: build them from the same input."
                )
        self.structure = _shape(state)
        self.batch_size, self.dtype, self.device = first.shape[0], first.dtype, first.device
        self._tree = state if isinstance(state, Tensor) else _skeleton(state)
        self._leaves = [_Leaf(shape=leaf.shape[1:], channels_last=_is_channels_last(leaf)) for leaf in flat]
        self._single = self._leaves[0] if isinstance(state, Tensor) else None

    def check(self, value: State, *, rule: str = "A fixed point needs f(z) to have") -> None:
        """Checks that `value`, what `f` returned, has the structure of the state.

        Args:
            value: a state.
            rule: why it has to, up to "the shape of the state", for messages.

        Raises:
            StructureError: naming the first difference.

        """
        found = list(leaves(value))
        if _structure(value) != _structure(self._tree):
            raise StructureError(
                f"`f` turned a state of structure {self.structure} into {_shape(value)}. {rule} the structure "
                "of the state: return the same nest of tuples."
            )
        for i, (leaf, spec) in enumerate(zip(found, self._leaves, strict=True)):
            want = (self.batch_size, *spec.shape)
            if tuple(leaf.shape) != want:
                raise StructureError(
                    f"`f` changed the shape of leaf {i} from {want} to {tuple(leaf.shape)}. {rule} "
                    "the shape of the state: look for a strided or unpadded layer in the cell."
                )
            if not leaf.is_floating_point() or leaf.device != self.device:
                raise StructureError(
                    f"`f` returned {leaf.dtype} on {leaf.device} for leaf {i} of a {self.dtype} state on "
                    f"{self.device}. f(z) stays on the state's device, in floating point: move the cell's "
                    "parameters with `.to()`."
                )

    def ravel(self, state: State) -> Tensor:
        """Returns `state` as a matrix (B, N) in the state's dtype: a view of a single leaf where possible."""
        if self._single is not None:
            assert isinstance(state, Tensor)
            rows = self._single.ravel(state)
            return rows if rows.dtype == self.dtype else rows.to(self.dtype)
        rows = [spec.ravel(leaf) for spec, leaf in zip(self._leaves, leaves(state), strict=True)]
        return torch.cat([row.to(self.dtype) for row in rows], dim=1)

    def unravel(self, matrix: Tensor) -> State:
        """Returns the state whose matrix (B, N) is `matrix`, as views."""
        if self._single is not None:
            return self._single.unravel(matrix)
        columns = iter(matrix.split([spec.size for spec in self._leaves], dim=1))
        specs = iter(self._leaves)
        # Kernels want dense tensors: a block of columns is not one.
        return _rebuild(self._tree, lambda: next(specs).unravel(next(columns).contiguous()))


def _skeleton(state: State) -> State:
    return torch.empty(0) if isinstance(state, Tensor) else tuple(_skeleton(part) for part in state)


def _structure(state: State) -> object:
    return None if isinstance(state, Tensor) else tuple(_structure(part) for part in state)


def _rebuild(tree: State, leaf) -> State:
    return leaf() if isinstance(tree, Tensor) else tuple(_rebuild(part, leaf) for part in tree)
