"""Evaluating a map anew in a backward pass."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deqzoo.adjoints.autocast import fresh_casts
from deqzoo.adjoints.base import uncached_weights


class Recall:
    """Evaluates maps again in the backward pass, to pull gradients back through them.

    Args:
        tensors: the maps' arguments, and after them the leaves that they capture.
        num_args: how many of `tensors` are arguments.

    Attributes:
        sums: the gradient of each of `tensors` over all pull-backs so far, None where there was none.

    """

    def __init__(self, tensors: Sequence[Tensor], num_args: int) -> None:
        self._tensors, self._num_args = tensors, num_args
        self.sums: list[Tensor | None] = [None] * len(tensors)

    def pull_back(
        self, f: Callable[..., Tensor], x: Tensor, v: Tensor, *, state_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Returns f(x) (B, N) and Jᵀ v (B, N), with J the Jacobian of f at x; adds v's part to `sums`.

        Args:
            f: (x (B, N), *args) -> (B, N).
            x: (B, N) where to evaluate it.
            v: (B, N) what to pull back.
            state_only: leave `sums` as they are.

        """
        with torch.enable_grad(), fresh_casts(), uncached_weights():
            x = x.detach().requires_grad_()
            args = [t.detach().requires_grad_(t.requires_grad) for t in self._tensors[: self._num_args]]
            fx = f(x, *args)
        wanted = [x] if state_only else [x, *args, *self._tensors[self._num_args :]]
        indices = [i for i, t in enumerate(wanted) if t.requires_grad]
        if not fx.requires_grad:
            return fx, torch.zeros_like(x)
        parts = torch.autograd.grad(fx, [wanted[i] for i in indices], v, allow_unused=True)
        for i, part in zip(indices[1:], parts[1:], strict=True):
            if part is not None:
                total = self.sums[i - 1]
                self.sums[i - 1] = part if total is None else total + part
        jv = torch.zeros_like(x) if parts[0] is None else parts[0]
        return fx.detach(), jv
