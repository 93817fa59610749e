"""Linear operators W = (1 − m) I − AᵀA + B − Bᵀ: with I − W ⪰ m I whatever A and B are (arXiv 2006.08591).

Each holds A and B as one parameter; W is computed from them, so that there is no moment at which it is anything else.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from deqzoo.nn import MonotoneOperator
from deqzoo.nn.torus import symbol, torus_length


class _Matrix(nn.Module):
    """(A, B) (2, n, n) ↦ W (n, n)."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, pair: Tensor) -> Tensor:
        a, b = pair
        eye = torch.eye(len(a), dtype=a.dtype, device=a.device)
        with torch.autocast(a.device.type, enabled=False):
            return (1 - self.margin) * eye - a.mT @ a + b - b.mT


class _Kernel(nn.Module):
    """(A, B) (2, C, C, k, k) ↦ the kernel W (C, C, 2k − 1, 2k − 1) of z ↦ (1 − m) z − AᵀA z + B z − Bᵀ z."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, pair: Tensor) -> Tensor:
        a, b = pair
        reach = a.shape[-1] // 2
        with torch.autocast(a.device.type, enabled=False):
            # AᵀA has the correlations of A's kernels with each other: sums over the channels that A gives.
            squared = F.conv2d(a.transpose(0, 1), a.transpose(0, 1), padding=2 * reach)
            skew = b - b.transpose(0, 1).flip(2, 3)
            kernel = F.pad(skew, [reach] * 4) - squared.flip(2, 3)
            center = F.pad(kernel.new_ones(1, 1), [2 * reach] * 4)
            return (
                kernel + (1 - self.margin) * center * torch.eye(len(a), dtype=a.dtype, device=a.device)[..., None, None]
            )


def initial_pair(width: int, taps: int) -> nn.Parameter:
    """Returns A and B (2, width, width, …) with norms ‖A‖₂, ‖B‖₂ of about one."""
    shape = (2, width, width) if taps == 1 else (2, width, width, taps, taps)
    return nn.Parameter(torch.randn(shape) * (0.5 / (width**0.5 * taps)))


class MonotoneMatrix(MonotoneOperator):
    """W as a matrix, for vectors z (B, width).

    Args:
        width: n.
        margin: m.

    """

    def __init__(self, width: int, *, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.weight = initial_pair(width, 1)
        parametrize.register_parametrization(self, "weight", _Matrix(margin), unsafe=True)

    @property
    def matrix(self) -> Tensor:
        """W (n, n)."""
        return cast(Tensor, self.weight)

    def forward(self, z: Tensor) -> Tensor:
        return F.linear(z, self.matrix)

    @torch.no_grad()
    def lipschitz(self, like: Tensor) -> float:
        return float(torch.linalg.matrix_norm(_eye(self.matrix) - self.matrix, ord=2))

    @torch.no_grad()
    def least_eigenvalue(self, like: Tensor) -> float:
        """Returns the least eigenvalue of I − (W + Wᵀ) / 2."""
        return float(torch.linalg.eigvalsh(_eye(self.matrix) - (self.matrix + self.matrix.mT) / 2).min())

    def inverse(self, alpha: float, like: Tensor) -> Tensor:
        with torch.autocast(self.matrix.device.type, enabled=False):
            return torch.linalg.inv((1 + alpha) * _eye(self.matrix) - alpha * self.matrix)

    def resolve(self, v: Tensor, inverse: Tensor) -> Tensor:
        return F.linear(v, inverse)


class MonotoneConv(MonotoneOperator):
    """W as a convolution, for maps z (B, width, H, W) with zeros around them.

    A and B have k×k taps, W has 2k − 1. Its inverse is that of the convolution on a torus which is larger by k − 1:
    there nothing comes around that would not meet zeros, once z is zero outside of its own place.

    Args:
        width: C.
        margin: m.
        taps: k, odd.

    """

    def __init__(self, width: int, *, margin: float, taps: int = 3) -> None:
        super().__init__()
        self.margin = margin
        self.reach = taps - 1
        self.weight = initial_pair(width, taps)
        parametrize.register_parametrization(self, "weight", _Kernel(margin), unsafe=True)

    @property
    def kernel(self) -> Tensor:
        """The taps of W (C, C, 2k − 1, 2k − 1)."""
        return cast(Tensor, self.weight)

    def forward(self, z: Tensor) -> Tensor:
        return F.conv2d(z, self.kernel, padding=self.reach)

    def symbol(self, like: Tensor) -> Tensor:
        """Returns Ŵ (height, width, C, C): what W on the torus for `like` does to each frequency of a real map.

        On `like` itself W is a compression of that operator: neither its norm nor its margin is worse.
        """
        return symbol(self.kernel, *map(self._torus, like.shape[2:]))

    @torch.no_grad()
    def lipschitz(self, like: Tensor) -> float:
        w = self.symbol(like)
        return float(torch.linalg.matrix_norm(_eye(w) - w, ord=2).max())

    @torch.no_grad()
    def least_eigenvalue(self, like: Tensor) -> float:
        """Returns a lower bound of the eigenvalues of I − (W + Wᵀ) / 2: the least on the torus."""
        w = self.symbol(like)
        return float(torch.linalg.eigvalsh(_eye(w) - (w + w.mH) / 2).min())

    def inverse(self, alpha: float, like: Tensor) -> Tensor:
        with torch.autocast(self.kernel.device.type, enabled=False):
            w = self.symbol(like)
            return torch.linalg.inv((1 + alpha) * _eye(w) - alpha * w)

    def resolve(self, v: Tensor, inverse: Tensor) -> Tensor:
        with torch.autocast(v.device.type, enabled=False):
            # One small matrix for each frequency, with the batch as its columns.
            spectrum = torch.fft.rfft2(v).permute(2, 3, 1, 0)
            return torch.fft.irfft2((inverse @ spectrum).permute(3, 2, 0, 1), s=v.shape[2:])

    def embed(self, z: Tensor) -> Tensor:
        height, width = z.shape[2:]
        return F.pad(z, (0, self._torus(width) - width, 0, self._torus(height) - height))

    def crop(self, u: Tensor, like: Tensor) -> Tensor:
        return u[:, :, : like.shape[2], : like.shape[3]]

    def _torus(self, side: int) -> int:
        """Returns the length of the torus for maps of that side."""
        return torus_length(side, self.reach)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
