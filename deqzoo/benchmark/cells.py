"""Cells for benchmarks of solvers: small, deterministic, and of the kinds that models are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.nn import Cell


class LinearCell(Cell):
    """z ↦ W z + x, so small that overhead dominates.

    Args:
        width: of z.
        gain: the spectral norm of W.

    """

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        weight = torch.randn(width, width)
        self.weight = nn.Parameter(gain * weight / torch.linalg.matrix_norm(weight, 2))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(x, z, self.weight.T)

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class ResidualConvCell(Cell):
    """z ↦ GN(φ(z + GN(x + C₂ φ(GN(C₁ z))))) with 3×3 convolutions: the block of a convolutional DEQ.

    φ is SiLU, whose derivative has no jumps: gradients can be compared to their last digits.

    Args:
        channels: of z; twice as many inside.

    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, 2 * channels)
        self.norm2, self.norm3 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        y = F.silu(self.norm1(self.conv1(z)))
        return self.norm3(F.silu(z + self.norm2(x + self.conv2(y))))

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class TransformerCell(Cell):
    """z ↦ LN(y + FFN(y)) with y = LN(z + x + attention(z + x)), causal: the block of a sequence DEQ.

    Args:
        width: of each position.
        heads: of the attention.
        gain: multiplies the default initialisation of the matrices.

    """

    def __init__(self, width: int, heads: int, gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        with torch.no_grad():
            for layer in (self.qkv, self.out, self.up, self.down):
                layer.weight.mul_(gain)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        h = z + x
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.norm1(h + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(y + self.down(F.gelu(self.up(y))))

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Case:
    """A cell with inputs for it.

    Attributes:
        name: of the case.
        cell: the map.
        injection: its input.
        hopeless: forward solvers that are not tried on it, each with the reason.

    """

    name: str
    cell: Cell
    injection: Tensor
    hopeless: Mapping[str, str] = field(default_factory=dict)

    def f(self, z: Tensor) -> Tensor:
        """The map with its injection."""
        return self.cell(z, self.injection)

    def loss(self, z: Tensor) -> Tensor:
        """A mean loss: its gradients have the small size that they have in training."""
        return F.mse_loss(z, self.injection)


_NO_NEWTON = {
    "NewtonKrylov": "it starts at z = 0, where GroupNorm divides by the root of its epsilon: the first step, which the "
    "Jacobian there dictates, leads astray"
}


def cases(gain: float = 1.7) -> tuple[Case, ...]:
    """Returns the cells of the benchmark, each from the same seed on every call; `gain` is that of the transformer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (
            Case("linear", LinearCell(64, gain=0.95), torch.randn(16, 64)),
            Case("convolution", ResidualConvCell(128), torch.randn(4, 128, 16, 16), _NO_NEWTON),
            # As stiff as sequence models are after training: their solvers are given some thirty evaluations.
            Case("transformer", TransformerCell(256, heads=4, gain=gain), torch.randn(4, 64, 256)),
        )
