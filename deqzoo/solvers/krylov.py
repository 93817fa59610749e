"""Krylov spaces of linear maps, one for each sample."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deqzoo.solvers.base import Map
from deqzoo.solvers.rows import add_combination, combination, into, overlaps, row_norms


class Krylov:
    """Orthonormal vectors V that span r, J r, J² r, …, with (I − J) V = V H and H of Hessenberg form (Arnoldi 1951).

    Least residuals of (I − J) d = r over these spaces need ‖r‖ and H alone.

    Args:
        r: (B, N) the first vector, up to its length.
        size: the most products with J.
        passes: how often each product is freed of its parts along the vectors before it. Rounding errors of the first
            time grow with every vector: V is hardly orthonormal any more once the residual is near the precision.

    Attributes:
        length: products so far.
        norm: (B,) ‖r‖.

    """

    def __init__(self, r: Tensor, size: int, *, passes: int) -> None:
        self._passes = passes
        self.length, self.norm = 0, row_norms(r)
        self._width, self._gap = r.shape[1], -r.shape[1] % 16  # zeros fill whole cache lines: see `rows`
        # Each vector is whole, so that maps need not copy it.
        self._vectors = r.new_empty(size + 1, r.shape[0], self._width + self._gap)
        self._columns: list[Tensor] = []
        self._keep(self._filled(r), self.norm)

    def _keep(self, vector: Tensor, norm: Tensor) -> None:
        norm = norm.clamp(min=torch.finfo(norm.dtype).tiny)
        into(self._vectors[self.length], torch.div, vector, norm[:, None])

    def _filled(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self._gap)) if self._gap else x

    def extend(self, linear: Map, dtype: torch.dtype) -> None:
        """Adds a vector by one product with J, which gets vectors in `dtype`."""
        vectors = self._vectors[: self.length + 1].transpose(0, 1)
        v = self._vectors[self.length]
        w = v - self._filled(linear(v[:, : self._width].to(dtype)).to(v.dtype))
        column = overlaps(vectors, w)
        w = add_combination(w, column, vectors, alpha=-1)
        for _ in range(self._passes - 1):
            rest = overlaps(vectors, w)
            w = add_combination(w, rest, vectors, alpha=-1)
            column += rest
        norm = row_norms(w)
        self._columns += [column, norm[:, None]]
        self.length += 1
        self._keep(w, norm)

    @property
    def noise(self) -> float:
        """The share of a product with I − J that may be rounding errors: a smaller part is no new vector."""
        return 1e3 * torch.finfo(self._vectors.dtype).eps

    def columns(self, since: int = 0) -> Tensor:
        """Returns the columns of H from `since` on, one behind the other: (B, …), k + 2 numbers for column k."""
        return torch.cat(self._columns[2 * since :], dim=1)

    def matrix(self) -> Tensor:
        """Returns H, (B, length + 1, length), with idle columns behind the first product that brought nothing."""
        k = self.length
        # Apple's GPUs know neither float64 nor its factorisations.
        device = torch.device("cpu") if self.norm.device.type == "mps" else self.norm.device
        # Each column of H is a row here, whose last entry is beside the diagonal.
        h = torch.zeros(len(self.norm), k, k + 1, dtype=torch.float64, device=device)
        rows, places = torch.tril_indices(k, k + 1, offset=1, device=device)
        h[:, rows, places] = self.columns().to(h)
        beside = h.diagonal(offset=1, dim1=1, dim2=2)
        brings = beside > self.noise * torch.linalg.vector_norm(h, dim=2)
        counts = torch.cat([torch.ones_like(brings[:, :1]), brings[:, :-1]], dim=1).cumprod(dim=1).bool()
        # Idle columns have a row of their own, where there is nothing to reduce.
        own = torch.eye(k + 1, dtype=h.dtype, device=device)[1:]
        return torch.where(counts[:, :, None], h, own).mT

    def combine(self, y: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the sums of vectors with the weights y (B, length) and rest (B, length + 1): both (B, N)."""
        vectors = self._vectors[: self.length + 1].transpose(0, 1)
        moved, left = combination(y.to(vectors), vectors[:, : self.length]), combination(rest.to(vectors), vectors)
        return moved[:, : self._width], left[:, : self._width]


def least_residual(h: Tensor, norm: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Returns y (B, k) for which ‖norm e₀ − h y‖ is least, and that difference (B, k + 1).

    Args:
        h: (B, k + 1, k) matrices.
        norm: (B,).
        noise: what of h may be rounding errors, as a share of its size or of 1, that of the vectors behind it. No y is
            made of it: where I − J is singular, it would be of any size.

    """
    norm = norm.to(h)[:, None]
    q, triangle = torch.linalg.qr(h)
    diagonal = triangle.diagonal(dim1=1, dim2=2)
    sizes = diagonal.abs()
    diagonal.masked_fill_(sizes <= noise * sizes.amax(dim=1, keepdim=True).clamp(min=1), torch.inf)
    y = torch.linalg.solve_triangular(triangle, norm[:, :, None] * q[:, :1].mT, upper=True)[:, :, 0]
    # Sums of plain products: those of matrices would depend on the size of the batch, to the last bit.
    rest = -(h * y[:, None]).sum(dim=2)
    rest[:, :1] += norm
    return y, rest
