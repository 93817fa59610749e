"""Products of the rows of matrices (B, N), and of histories (B, m, N): samples never mix.

The forms are chosen by measurement: on a CPU a batched matrix-vector product is several times slower than the same
numbers asked for as a vector-matrix product.
"""

import torch
from torch import Tensor


def row_norms(x: Tensor) -> Tensor:
    """(B, N) -> (B,): Euclidean norms, summed in float32 at least."""
    return torch.linalg.vector_norm(x.detach(), dim=1, dtype=torch.promote_types(x.dtype, torch.float32))


def row_dots(x: Tensor, y: Tensor) -> Tensor:
    """(B, N), (B, N) -> (B, 1): inner products."""
    return torch.linalg.vecdot(x, y).unsqueeze(1)


def overlaps(history: Tensor, x: Tensor) -> Tensor:
    """(B, m, N), (B, N) -> (B, m): inner products of x with each row of its history."""
    return torch.bmm(x[:, None], history.mT)[:, 0]


def combination(weights: Tensor, history: Tensor) -> Tensor:
    """(B, m), (B, m, N) -> (B, N): sums of histories with weights."""
    return torch.bmm(weights[:, None], history)[:, 0]


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype in which histories and small systems are kept: at least float32."""
    return torch.promote_types(dtype, torch.float32)
