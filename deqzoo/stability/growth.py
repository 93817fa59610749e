"""How much a map enlarges the worst small disturbance of its equilibrium."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deqzoo.fixed_point import eager
from deqzoo.matrix_map import MatrixMap
from deqzoo.tree import Layout, State


@eager
def dominant_growth(f: Callable[..., State], z: State, *args: Any, steps: int = 2, radius: float = 0.1) -> Tensor:
    """(B,) ‖f(z + d) − f(z)‖ / ‖d‖ per sample, for the disturbance d that f enlarges most.

    Found by power iteration from f(z) − z, or from a direction at random where that is zero: what a solve leaves over
    lies along the directions that contract least. For small d this is the size of the Jacobian's dominant eigenvalue.
    One such direction among thousands is enough to end convergence, and ‖J‖_F hardly knows of it. It takes differences,
    hence no second derivatives, and bears the rounding of half precision.

    Differentiable with respect to `args` and the parameters of f; z and d are taken as constants. Costs 3 + `steps`
    evaluations of f.

    Args:
        f: the map whose fixed point z is, (z, *args) -> z-like; it must not mix samples.
        z: where to look, usually the equilibrium: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to `f`.
        steps: of the power iteration.
        radius: ‖d‖ / ‖z‖.

    Raises:
        StructureError: if z is no state, or f changes its structure or shapes.

    """
    if steps < 0 or not radius > 0:
        raise ValueError(
            f"dominant_growth got steps={steps} and radius={radius}. Steps are not negative and the radius is "
            "positive: steps=2, radius=0.1."
        )
    layout = Layout(z)
    flat = MatrixMap(f, layout, args, rule="A fixed point needs f(z) to have")
    with torch.no_grad():
        at = layout.ravel(z).detach()
        size = radius * _norms(at)
        image = flat(at, *flat.tensors)
        left = image - at
        # Nothing is left over of a state that f returns to the last bit, as happens in half precision.
        d = _scaled(torch.where(left.any(1, keepdim=True), left, _any_direction(at)), size)
        for _ in range(steps):
            d = _scaled(flat(at + d, *flat.tensors) - image, size)
    change = flat(at + d, *flat.tensors) - flat(at, *flat.tensors)
    return (_norms(change) / _norms(d).clamp_min(torch.finfo(d.dtype).tiny)).squeeze(1)


def _any_direction(rows: Tensor) -> Tensor:
    """Returns the same vector in every call, and leaves torch's own random numbers alone."""
    generator = torch.Generator(rows.device).manual_seed(0)
    return torch.randn(rows.shape[1], generator=generator, dtype=rows.dtype, device=rows.device)


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True)


def _scaled(rows: Tensor, size: Tensor) -> Tensor:
    # Divided first: size over the norm of a row of zeros may overflow, and zero times infinity is NaN.
    return rows / _norms(rows).clamp_min(torch.finfo(rows.dtype).tiny) * size
