"""Maps that are positive, increasing, concave and bounded, whatever their weights (arXiv 2402.04029).

f(z) = σ(W z + p) with W ≥ 0 and p such that f(0) > 0 has exactly one fixed point in z ≥ 0, and iteration finds it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.nn import Cell, nonnegative

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
}
"""Concave on z ≥ 0, increasing, bounded."""

_REFINEMENTS = 200
"""The most iterations from above and from below that a certificate compares."""


def positive_injection(x: Tensor, activation: str) -> Tensor:
    """Returns p (B, ...) with σ(p) > 0: softplus₅(x) where σ(0) = 0 (pcDEQ-1), ReLU(x) where σ(0) > 0 (pcDEQ-2)."""
    return F.relu(x) if activation == "sigmoid" else F.softplus(x, beta=5)


class PositiveConcaveCell(Cell):
    """z ↦ σ(W z + p), with W ≥ 0 by parametrisation: a matrix, or a 3×3 convolution that keeps the size.

    Args:
        width: length of z, or its channels.
        activation: "tanh", "softsign", "relu6" (pcDEQ-1) or "sigmoid" (pcDEQ-2).
        dense: whether W is a matrix.

    """

    def __init__(self, width: int, *, activation: str, dense: bool = False) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"activation={activation!r} is not known to be concave, increasing and bounded, as a unique "
                f"equilibrium needs it to be. Choose one of {', '.join(_ACTIVATIONS)}."
            )
        self.activation = activation
        linear = nn.Linear(width, width, bias=False) if dense else nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.uniform_(linear.weight, 0, 1e-2 / (2 * width) ** 0.5)
        self.linear = nonnegative(linear)

    def forward(self, z: Tensor, p: Tensor) -> Tensor:
        return _ACTIVATIONS[self.activation](self.linear(z) + p)

    def initial_state(self, p: Tensor) -> Tensor:
        return torch.zeros_like(p)


def iteration_bounds(cell: PositiveConcaveCell, p: Tensor, rtol: float) -> tuple[Tensor, Tensor]:
    """Returns (B,) c, and (B,) a number of iterations from zero after which all components are within `rtol` of z*.

    With μ = minᵢ f(0)ᵢ / z*ᵢ, plain iteration from zero obeys 0 ≤ z* − z_k ≤ (1 − μ)ᵏ z*, and c = 1 − μ; the Jacobian
    at z* has the weighted norm of at most c, so that the backward iteration converges at the same rate. The same holds
    of m iterations taken as one, fᵐ with μₘ = minᵢ fᵐ(0)ᵢ / z*ᵢ, which is much sharper once all components have been
    fed: the number is the least m ⌈log rtol / log(1 − μₘ)⌉ that is found. z* need not be known: iterates u that start
    above all components of z* stay above it, and μₘ ≥ minᵢ fᵐ(0)ᵢ / uᵢ.
    """
    above = torch.full_like(p, 6.0 if cell.activation == "relu6" else 1.0)
    for _ in range(_REFINEMENTS):
        higher, above = above, cell(above, p)
        if (higher - above <= min(1e-12, 1e-4 * rtol) * above).all():  # what is left weighs nothing beside rtol
            break
    below = torch.zeros_like(p)
    mus: list[Tensor] = []
    # Once a single step of fᵐ is enough for every sample, larger m prove nothing better.
    while len(mus) < _REFINEMENTS and not (mus and (mus[-1] >= 1 - rtol).all()):
        below = cell(below, p)
        mus.append((below / above).flatten(1).amin(1).clamp_max(1))
    # (1 − μₘ)ᵏ ≤ rtol; log1p, as 1 − μ may round to one.
    steps = [m * (math.log(rtol) / torch.log1p(-mu)).ceil().clamp_min(1) for m, mu in enumerate(mus, start=1)]
    return 1 - mus[0], torch.stack(steps).amin(0)
