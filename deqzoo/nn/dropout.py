"""Dropout that is the same in every step of a solve."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deqzoo.errors import SolverError


class VariationalDropout(nn.Module):
    """Draws dropout masks for cells: zero with probability p, else 1 / (1 − p).

    After Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
    networks".

    The mask is drawn before the solve and goes to the cell with the injection, so that the map stays the same
    map in the solve and in the backward pass, and the module keeps nothing from it:

        def forward(self, x):
            return self.equilibrium(x, self.dropout.draw(x))  # the cell multiplies by its second injection

    Args:
        p: the probability to drop, in [0, 1).
        shared: dimensions over which one draw counts for all: (2, 3) drops whole channels of images (B, C, H,
            W), (1,) the same features in all places of sequences (B, T, D).

    """

    def __init__(self, p: float, *, shared: Sequence[int] = ()) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"VariationalDropout got p={p}. A probability to drop lies in [0, 1): use p=0.25, say.")
        if any(dim < 1 for dim in shared):
            raise ValueError(
                f"VariationalDropout got shared={tuple(shared)}. Samples have masks of their own, and "
                "dimensions count from the front: use (2, 3) for images (B, C, H, W), (1,) for sequences (B, "
                "T, D)."
            )
        self.p = p
        self.shared = tuple(shared)

    def draw(self, like: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Returns a new mask for a state like `like` (B, ...): of its shape, but 1 along shared dimensions.

        Ones in eval mode. Carries no gradient.
        """
        shape = [1 if dim in self.shared else size for dim, size in enumerate(like.shape)]
        if not self.training or self.p == 0:
            return like.new_ones(shape)
        return like.new_empty(shape).bernoulli_(1 - self.p, generator=generator).div_(1 - self.p)

    def forward(self, z: Tensor) -> Tensor:
        """Raises a `SolverError`: a mask that is drawn where it is used changes within the solve."""
        raise SolverError(
            "VariationalDropout was called like a layer. Its mask has to be drawn before the solve, to be "
            "constant in it: call `mask = dropout.draw(x)`, hand the mask to the cell as an injection and "
            "multiply by it there."
        )

    def extra_repr(self) -> str:
        return f"p={self.p}, shared={self.shared}"
