"""How fast plain iteration would contract near an equilibrium."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deqzoo.fixed_point import eager
from deqzoo.solvers import Map
from deqzoo.solvers.rows import combination, overlaps, row_norms, work_dtype
from deqzoo.stability.linearisation import linearise
from deqzoo.tree import State


@dataclass(frozen=True, kw_only=True)
class SpectralRadius:
    """The spectral radius of a Jacobian, per sample of a batch of B. Detached from any graph.

    Attributes:
        value: (B,) |λ| of the dominant eigenvalue, or complex pair; NaN where the Jacobian is not finite.
        settled: (B,) bool: whether λ is an eigenvalue to the tolerance; if not, `value` is the last estimate.
            No iteration can exclude a larger eigenvalue that hides among many nearly as large.
        num_products: vector-Jacobian products for the whole batch.

    """

    value: Tensor
    settled: Tensor
    num_products: int


@eager
def spectral_radius(
    f: Callable[..., State], z: State, *args: Any, steps: int = 200, rtol: float = 1e-3, memory: int = 16
) -> SpectralRadius:
    """Returns ρ(J) of each sample, J the Jacobian of f at z. Below 1, plain iteration contracts near z.

    Power iteration that remembers: λ is the dominant eigenvalue of Jᵀ projected on the last powers, so that
    complex pairs need no care. A full memory keeps the directions of its dominant half (Stewart 2001, "A
    Krylov–Schur algorithm for large eigenproblems"). A sample has settled once ‖Jᵀx − λx‖ ≤ rtol |λ| ‖x‖. All
    samples start from the same vector, always: a result depends on no other sample, and does not change from
    call to call.

    Keeps no graph, and works under no_grad and in inference mode. Costs one evaluation of f, at most `steps`
    vector-Jacobian products and two small transfers each time that the memory is full.

    Args:
        f: the map whose fixed point z is, (z, *args) -> z-like; it must not mix samples.
        z: where to look, usually the equilibrium: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to f.
        steps: the most products to spend.
        rtol: relative tolerance.
        memory: powers to remember, that is states to keep.

    Raises:
        StructureError: if z is no state, or f changes its structure or shapes.
        AdjointError: if f uses tensors that no graph can hold.

    """
    if memory < 4 or steps < memory:
        raise ValueError(
            f"spectral_radius got steps={steps}, memory={memory}. It remembers at least 4 powers and fills "
            "its memory once: use memory=16 and steps=200."
        )
    if not rtol > 0:
        raise ValueError(f"spectral_radius got rtol={rtol}. Eigenvalues settle to a positive tolerance: use rtol=1e-3.")
    with torch.inference_mode(False), torch.enable_grad():
        at_z = linearise(f, z, args)
        batch, size = at_z.z.shape
        dtype = work_dtype(at_z.z.dtype)

        def product(u: Tensor) -> Tensor:
            return at_z.transposed_times(u.to(at_z.z.dtype)).detach().to(dtype)

        with torch.no_grad():
            krylov = _Krylov(batch, size, max(1, min(memory, size)), dtype, at_z.z.device)
            value = torch.zeros(batch, dtype=torch.float64)
            settled = done = torch.zeros(batch, dtype=torch.bool)
            spent = kept = 0
            while True:
                krylov.fill(product, kept)
                spent += krylov.powers - kept
                radius, residual, directions = krylov.dominant_half()
                now = residual <= rtol * radius + krylov.rounding()
                value = torch.where(done, value, radius)
                settled = settled | (~done & now)
                done = settled | value.isnan()
                kept = directions.shape[2]
                if done.all() or spent + krylov.powers - kept > steps:
                    break
                krylov.shrink(directions)
    device = at_z.z.device
    return SpectralRadius(value=value.to(device, dtype), settled=settled.to(device), num_products=spent)


class _Krylov:
    """Orthonormal vectors V = (v₁ … v_m) per sample, one more, and H with A V = (V, v_m₊₁) H.

    Directions that a sample does not have are zero vectors, with zeros in H.
    """

    def __init__(self, batch: int, size: int, powers: int, dtype: torch.dtype, device: torch.device) -> None:
        self.powers = powers
        self._basis = torch.zeros(batch, powers + 1, size, dtype=dtype, device=device)
        self._h = torch.zeros(batch, powers + 1, powers, dtype=dtype, device=device)
        # Drawn on the CPU, so that every device starts alike.
        start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        self._basis[:, 0] = start / start.norm()

    def fill(self, product: Map, kept: int) -> None:
        """Adds powers of A, that is `product` (B, N) -> (B, N), behind `kept` directions and one vector."""
        for j in range(kept, self.powers):
            known = self._basis[:, : j + 1]
            new = product(self._basis[:, j])
            length = row_norms(new)
            for _ in range(2):  # twice is enough
                overlap = overlaps(known, new)
                new = new - combination(overlap, known)
                self._h[:, : j + 1, j] += overlap
            rest = row_norms(new)
            # Within the rounding error nothing is left but noise.
            rest = torch.where(rest <= 10 * torch.finfo(rest.dtype).eps * length, 0, rest)
            self._h[:, j + 1, j] = rest
            self._basis[:, j + 1] = torch.where(rest[:, None] == 0, 0, new / rest[:, None])

    def dominant_half(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the dominant |λ|, its residual and the directions to keep, on the CPU in float64.

        Returns:
            (B,) |λ|, NaN if not finite; (B,) ‖Ax − λx‖ for its unit eigenvector in V; and (B, m, k)
            orthonormal directions in V that span the eigenvectors of the dominant half.

        """
        h = self._h.double().cpu()  # small, and eigenvalues of general matrices are the CPU's business
        finite = h.isfinite().all(dim=2).all(dim=1)
        h = torch.where(finite[:, None, None], h, 0)
        values, vectors = torch.linalg.eig(h[:, : self.powers])
        order = values.abs().argsort(dim=1, descending=True, stable=True)
        values = values.gather(1, order)
        vectors = vectors.gather(2, order[:, None].expand_as(vectors))
        residual = h[:, self.powers, -1] * vectors[:, -1, 0].abs()
        half = max(1, self.powers // 2)
        # A pair of conjugate vectors spans what its real and its imaginary part span.
        parts = torch.where((values.imag < 0)[:, None], vectors.imag, vectors.real)[:, :, :half]
        # Half a pair spans nothing that A keeps.
        cut = (values.imag[:, half - 1] != 0) & ((values.imag[:, :half] != 0).sum(1) % 2 == 1)
        parts[:, :, -1] = torch.where(cut[:, None], 0, parts[:, :, -1])
        return torch.where(finite, values[:, 0].abs(), torch.nan), residual, _orthonormal(parts)

    def rounding(self) -> Tensor:
        """(B,) the rounding errors to expect in A v, on the CPU."""
        return (100 * torch.finfo(self._h.dtype).eps * torch.linalg.matrix_norm(self._h)).double().cpu()

    def shrink(self, directions: Tensor) -> None:
        """Keeps directions of V (B, m, k), which H must map to their own span, and the vector after V."""
        q = directions.to(self._h)
        kept = q.shape[2]
        inner = q.mT @ self._h[:, : self.powers] @ q
        outer = self._h[:, self.powers, -1, None] * q[:, -1]
        self._basis[:, :kept] = q.mT @ self._basis[:, : self.powers]
        self._basis[:, kept] = self._basis[:, self.powers]
        self._h.zero_()
        self._h[:, :kept, :kept] = inner
        self._h[:, kept, :kept] = outer


def _orthonormal(columns: Tensor) -> Tensor:
    """(B, m, k) -> (B, m, k): orthonormal columns of the same span, zero where they depend on others."""
    columns = columns.clone()
    for j in range(columns.shape[2]):
        before, new = columns[:, :, :j], columns[:, :, j]
        length = row_norms(new)
        for _ in range(2):
            new = new - (before @ (before.mT @ new[:, :, None]))[:, :, 0]
        rest = row_norms(new)
        columns[:, :, j] = torch.where((rest <= 1e-8 * length)[:, None], 0, new / rest[:, None])
    return columns
