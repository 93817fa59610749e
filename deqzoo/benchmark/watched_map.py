"""A map that is watched while others solve it: evaluations, and the time that is its own."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class WatchedMap:
    """Counts the evaluations of f and adds up the time that they and the backward passes through them take.

    What a solver takes beyond these is its own. Gradients pass every evaluation, also those whose argument needs none.

    Args:
        f: the map.

    Attributes:
        evals: evaluations so far.
        forward_ms: milliseconds inside of f.
        backward_ms: milliseconds inside of backward passes through f, vector-Jacobian products included.

    """

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self._f = f
        self.evals, self.forward_ms, self.backward_ms = 0, 0.0, 0.0
        self._entered = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        start = time.perf_counter()
        if torch.is_grad_enabled():
            # A backward pass comes to each evaluation that has an argument to pass gradients on to.
            seen = z if z.requires_grad else z.detach().requires_grad_()
            value = _Passing.apply(self._f(_Passing.apply(seen, self._leave)), self._enter)
        else:
            value = self._f(z)
        self.forward_ms += 1e3 * (time.perf_counter() - start)
        self.evals += 1
        return value

    def _enter(self) -> None:
        self._entered = time.perf_counter()

    def _leave(self) -> None:
        self.backward_ms += 1e3 * (time.perf_counter() - self._entered)


class _Passing(torch.autograd.Function):
    """The identity, that tells when gradients pass it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tell: Callable[[], None]) -> Tensor:
        ctx.tell = tell
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.tell()
        return gradients[0], None
