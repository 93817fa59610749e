"""Parametrisations: constraints on weights that hold at all times, not only after an optimiser step."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class NonNegative(nn.Module):
    """W = g v₊ / ‖v₊‖ per output row or filter, with v₊ = |v| and g = |g̃|: W ≥ 0 whatever v and g̃ are.

    Unlike clamping after each step, the constraint cannot be violated, and no weight is stuck at a clamped zero: the
    gradient of |v| pushes it through to the other side.

    Args:
        gain: the scale g that every row starts with; None keeps the norms of the weight that is parametrised.
    """

    def __init__(self, gain: float | None = None) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, v: Tensor, g: Tensor) -> Tensor:
        return g.abs() * _unit_rows(v.abs())

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        v = weight.abs()
        norms = _row_norms(v)
        return _unit_rows(v), norms if self.gain is None else torch.full_like(norms, self.gain)


def _row_norms(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)


def _unit_rows(weight: Tensor) -> Tensor:
    return weight / _row_norms(weight).clamp_min(torch.finfo(weight.dtype).tiny)


def nonnegative(module: nn.Module, gain: float | None = None) -> nn.Module:
    """Parametrises `module.weight` by `NonNegative` and returns the module."""
    return parametrize.register_parametrization(module, "weight", NonNegative(gain))
