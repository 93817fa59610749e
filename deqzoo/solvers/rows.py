"""Products of the rows of matrices (B, N), and of histories (B, m, N): samples never mix.

What a row gives depends, to the last bit, on that row alone. On a CPU the fast batched products keep to this while
rows start at whole cache lines, which N divisible by 16 ensures; other sizes take plain sums.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def row_norms(x: Tensor) -> Tensor:
    """(B, N) -> (B,): Euclidean norms, summed in float32 at least."""
    if x.requires_grad:
        x = x.detach()
    return torch.linalg.vector_norm(x, dim=1, dtype=work_dtype(x.dtype))


def safe_row_norms(x: Tensor) -> Tensor:
    """(B, N) -> (B,): norms in float64 that neither under- nor overflow, for the rare rows where it matters."""
    x = x.detach()
    largest = row_maxima(x)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1)
    return row_norms(x / scale).double() * scale[:, 0].double()


def row_maxima(x: Tensor) -> Tensor:
    """(B, N) -> (B, 1): the largest absolute values, 0 for rows of length 0."""
    return x.abs().amax(dim=1, keepdim=True) if x.shape[1] else x.new_zeros(x.shape[0], 1)


def row_dots(x: Tensor, y: Tensor) -> Tensor:
    """(B, N), (B, N) -> (B, 1): inner products."""
    return overlaps(y[:, None], x)


def overlaps(history: Tensor, x: Tensor) -> Tensor:
    """(B, m, N), (B, N) -> (B, m): inner products of x with each row of its history."""
    if x.shape[1] % 16 == 0:
        # On a CPU several times faster than the same product asked for as matrix times vector.
        return torch.bmm(x[:, None], history.mT)[:, 0]
    return _sums(history * x[:, None])


def combination(weights: Tensor, history: Tensor) -> Tensor:
    """(B, m), (B, m, N) -> (B, N): sums of histories with weights."""
    if history.shape[2] % 16 == 0:
        return torch.bmm(weights[:, None], history)[:, 0]
    return (weights[:, :, None] * history).sum(1)


def add_combination(x: Tensor, weights: Tensor, history: Tensor, *, alpha: float = 1) -> Tensor:
    """(B, N), (B, m), (B, m, N) -> (B, N): x plus alpha times the sum of its history with weights."""
    if history.shape[2] % 16 == 0:
        return torch.baddbmm(x[:, None], weights[:, None], history, alpha=alpha)[:, 0]
    return torch.add(x, combination(weights, history), alpha=alpha)


def into(place: Tensor, operation: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """Returns operation(*operands), computed right where it is kept."""
    if torch.compiler.is_compiling():  # Dynamo knows no results in strided places, and what it compiles copies nothing
        return place.copy_(operation(*operands))
    return operation(*operands, out=place)


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype in which histories and small systems are kept: at least float32."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.promote_types(dtype, torch.float32)


def _sums(x: Tensor) -> Tensor:
    """Sums over the last dimension."""
    if x[..., 0].numel() == 1:  # a single sum would be split over threads, which no other is
        return x.expand(2, *x.shape[1:]).sum(-1)[:1]
    return x.sum(-1)
