"""W = (1 − m) I − AᵀA + B − Bᵀ across resolutions (arXiv 2006.08591)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.errors import StructureError
from deqzoo.models.mondeq_parts import initial_pair
from deqzoo.nn import MonotoneOperator


class MonotoneTiers(MonotoneOperator):
    """W on several resolutions at once, for z of one map (B, Cᵢ, H / 2ⁱ, W / 2ⁱ) per tier.

    A maps every tier to itself and, by steps of two, to the next; B is one convolution per tier. As AᵀA contains the
    way back, every two neighbours see each other.

    Args:
        widths: channels of each tier, finest first.
        margin: m.
        taps: of all convolutions, along each side; odd.

    """

    def __init__(self, widths: Sequence[int], *, margin: float, taps: int = 3) -> None:
        super().__init__()
        self.margin = margin
        self.padding = taps // 2
        self.pairs = nn.ParameterList(initial_pair(width, taps) for width in widths)
        self.down = nn.ParameterList(
            nn.Parameter(torch.randn(below, above, taps, taps) * (0.5 / (below**0.5 * taps)))
            for above, below in pairwise(widths)
        )

    def forward(self, z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._times(z, 1)

    def transposed(self, z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns Wᵀ z."""
        return self._times(z, -1)

    def _times(self, z: tuple[Tensor, ...], sign: int) -> tuple[Tensor, ...]:
        p = self.padding
        a_z = [F.conv2d(part, pair[0], padding=p) for part, pair in zip(z, self.pairs, strict=True)]
        for i, weight in enumerate(self.down):
            a_z[i + 1] = a_z[i + 1] + F.conv2d(z[i], weight, stride=2, padding=p)
        out = []
        for i, (part, (a, b)) in enumerate(zip(z, self.pairs, strict=True)):
            skew = sign * (b - b.transpose(0, 1).flip(2, 3))
            wz = (1 - self.margin) * part - F.conv_transpose2d(a_z[i], a, padding=p) + F.conv2d(part, skew, padding=p)
            if i < len(self.down):
                # Sizes that were odd and even give the same next tier: back to the one that it was.
                extra = [(side + 1) % 2 for side in part.shape[2:]]
                wz = wz - F.conv_transpose2d(a_z[i + 1], self.down[i], stride=2, padding=p, output_padding=extra)
            out.append(wz)
        return tuple(out)

    @torch.no_grad()
    def lipschitz(self, like: tuple[Tensor, ...]) -> float:
        """Estimates ‖I − W‖₂ by 30 steps of a power iteration, from below, and adds 5 %."""
        z = _unit(_random_like(like))
        norm = 0.0
        for _ in range(30):
            gz = tuple(a - b for a, b in zip(z, self(z), strict=True))
            norm = math.sqrt(sum(float(part.square().sum()) for part in gz))
            z = _unit(tuple(a - b for a, b in zip(gz, self.transposed(gz), strict=True)))
        return 1.05 * norm

    @torch.no_grad()
    def least_eigenvalue(self, like: tuple[Tensor, ...]) -> float:
        """Estimates the least eigenvalue of I − (W + Wᵀ) / 2 by 60 steps of Lanczos' method, from above."""
        basis = [_unit(_random_like(like))]
        rows = []
        for _ in range(60):
            z = basis[-1]
            gz = tuple(a - (b + c) / 2 for a, b, c in zip(z, self(z), self.transposed(z), strict=True))
            overlaps = [sum(float((p * q).sum()) for p, q in zip(gz, known, strict=True)) for known in basis]
            rows.append(overlaps)
            for _ in range(2):
                for known in basis:
                    part = sum((p * q).sum() for p, q in zip(gz, known, strict=True))
                    gz = tuple(p - part * q for p, q in zip(gz, known, strict=True))
            if sum(float(part.square().sum()) for part in gz) < 1e-16:
                break
            basis.append(_unit(gz))
        size = len(rows)
        projected = torch.zeros(size, size, dtype=torch.float64)
        for i, row in enumerate(rows):
            projected[i, : i + 1] = torch.tensor(row)
        return float(torch.linalg.eigvalsh(projected, UPLO="L").min())

    def inverse(self, alpha: float, like: tuple[Tensor, ...]) -> Tensor:
        raise StructureError(
            f"PeacemanRachford met an operator of {len(self.pairs)} tiers. It needs the inverse of I + α (I − W), "
            "which has no cheap form across resolutions: use ForwardBackward(), or a single tier."
        )

    def resolve(self, v: Tensor, inverse: Tensor) -> Tensor:
        raise NotImplementedError


def _random_like(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns one sample of noise with the shapes of `state`, always the same."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, *part.shape[1:], generator=generator).to(part) for part in state)


def _unit(state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    norm = torch.stack([part.square().sum() for part in state]).sum().sqrt()
    return tuple(part / norm for part in state)
