"""The Jacobian of a map at a state, as products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deqzoo.adjoints.base import vector_jacobian
from deqzoo.errors import AdjointError
from deqzoo.tree import Layout, State


@dataclass(frozen=True)
class Linearisation:
    """f near z, for the samples of a batch one by one.

    Attributes:
        z: (B, N) where f was evaluated, as a leaf of the graph.
        fz: (B, N) f(z), with its graph.

    """

    z: Tensor
    fz: Tensor

    def transposed_times(self, u: Tensor, *, create_graph: bool = False) -> Tensor:
        """(B, N) -> (B, N): Jᵀ u, differentiable again under `create_graph`."""
        if not self.fz.requires_grad:  # f does not depend on z
            return torch.zeros_like(u)
        return vector_jacobian(self.fz, self.z, u, create_graph=create_graph)


def linearise(f: Callable[..., State], z: State, args: tuple[Any, ...]) -> Linearisation:
    """Returns f at z, which is taken as a constant. One evaluation, with a graph.

    To be called under `torch.inference_mode(False)` and `torch.enable_grad()`.

    Raises:
        StructureError: if z is no state, or f changes its structure or shapes.
        AdjointError: if f uses tensors that no graph can hold.

    """
    layout = Layout(z)
    flat = _outside_inference(layout.ravel(z)).detach().requires_grad_()
    try:
        value = f(layout.unravel(flat), *_outside_inference(args))
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise AdjointError(
            "f uses tensors that were made under torch.inference_mode() and cannot take part in a "
            "derivative. Hand them over as arguments, which are copied, or use torch.no_grad() where they "
            "are made."
        ) from error
    layout.check(value)
    return Linearisation(flat, layout.ravel(value))


def _outside_inference(args: Any) -> Any:
    """Returns `args` with copies for the tensors that were made in inference mode, in nested tuples too."""
    if isinstance(args, tuple):
        return tuple(_outside_inference(part) for part in args)
    return args.clone() if isinstance(args, Tensor) and args.is_inference() else args
