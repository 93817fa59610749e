"""Cells for the tests of deqzoo.nn: small, smooth, contracting."""

import torch
from torch import Tensor, nn

from deqzoo.nn import Cell


class TanhCell(Cell):
    """z -> tanh(layer(z) + x), times a mask if one is injected."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = width

    def forward(self, z: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out = torch.tanh(self.layer(z) + x)
        return out if mask is None else out * mask

    def initial_state(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


def linear(width: int = 6, *, gain: float = 0.5, seed: int = 0) -> nn.Linear:
    """Returns a linear layer (float64) of spectral norm `gain`."""
    layer = nn.Linear(width, width, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        layer.weight.mul_(gain / torch.linalg.matrix_norm(layer.weight, 2))
    return layer


def inputs(batch: int = 3, width: int = 6, *, seed: int = 1) -> Tensor:
    """Returns x (batch, width) in float64."""
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
