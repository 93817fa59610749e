"""The map of monotone operator networks (arXiv 2006.08591)."""

from typing import Any

import torch
from torch import Tensor

from deqzoo.fixed_point import Iteration
from deqzoo.nn import Cell, MonotoneOperator, Splitting
from deqzoo.nn.splitting import relu


class MonotoneCell(Cell):
    """z ↦ ReLU(W z + x), solved by operator splitting.

    Args:
        operator: W.
        splitting: what is iterated instead of that map; None for the map itself, which need not contract. No part of
            the architecture: it may be reassigned at any time.

    """

    def __init__(self, operator: MonotoneOperator, *, splitting: Splitting | None) -> None:
        super().__init__()
        self.operator = operator
        self.splitting = splitting

    def forward(self, z: Any, x: Any) -> Any:
        wz = self.operator(z)
        return relu(wz + x if isinstance(z, Tensor) else tuple(a + b for a, b in zip(wz, x, strict=True)))

    def initial_state(self, x: Any) -> Any:
        return torch.zeros_like(x) if isinstance(x, Tensor) else tuple(map(torch.zeros_like, x))

    def iterate(self, x: Any) -> Iteration | None:
        return self.splitting.iterate(self.operator, x) if self.splitting else None
