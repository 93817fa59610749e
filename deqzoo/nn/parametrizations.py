"""Parametrisations: constraints on weights that hold at all times, not only after an optimiser step."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize


class NonNegative(nn.Module):
    """W = g v₊ / ‖v₊‖ per output row or filter, with v₊ = |v| and g = |g̃|: W ≥ 0 whatever v and g̃ are.

    Unlike clamping after each step, the constraint cannot be violated, and no weight is stuck at a clamped zero: the
    gradient of |v| pushes it through to the other side.

    Args:
        gain: the scale g that every row starts with; None keeps the norms of the weight that is parametrised.

    """

    def __init__(self, gain: float | None = None) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, v: Tensor, g: Tensor) -> Tensor:
        return g.abs() * _unit_rows(v.abs())

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        v = weight.abs()
        norms = _row_norms(v)
        return _unit_rows(v), norms if self.gain is None else torch.full_like(norms, self.gain)


def _row_norms(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)


def _unit_rows(weight: Tensor) -> Tensor:
    # Scaled first, so that neither squares overflow nor the gradient of a zero row divides by zero.
    info = torch.finfo(weight.dtype)
    largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    weight = weight / largest.clamp_min(info.tiny / info.eps)
    return weight / _row_norms(weight).clamp_min(0.5)


def nonnegative(module: nn.Module, gain: float | None = None) -> nn.Module:
    """Parametrises `module.weight` by `NonNegative` and returns the module."""
    return parametrize.register_parametrization(module, "weight", NonNegative(gain))


class SpectralNormalised(nn.Module):
    """W = c V / σ(V), with σ the largest singular value of V as a matrix (rows or filters, everything else).

    After Miyato et al. 2018, "Spectral normalization for generative adversarial networks", but with the exact
    σ, and hence a pure function of V: ‖W‖₂ = c holds at all times. The estimate that
    `torch.nn.utils.parametrizations.spectral_norm` keeps takes another step of its power iteration in each
    evaluation that trains, so that the solve and the graph would see different weights; and it is too small,
    so that ‖W‖₂ > 1. Costs one eigendecomposition of the smaller Gram matrix per solve, one for the graph.

    Args:
        bound: c.

    """

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(
                f"SpectralNormalised got bound={bound}. A norm is positive: use bound=1.0, or 0.9 to contract."
            )
        self.bound = bound

    def forward(self, v: Tensor) -> Tensor:
        # Not in half precision, which has neither the digits nor the kernels.
        with torch.autocast(v.device.type, enabled=False):
            return (v * (self.bound / _spectral_norm(v))).to(v.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        if not weight.any():
            raise ValueError(
                "A weight to be normalised by its spectral norm is zero everywhere. Zero cannot be scaled to "
                "a norm: initialise with small values instead."
            )
        return weight


def _spectral_norm(weight: Tensor) -> Tensor:
    """Returns the largest singular value of `weight` (rows, ...), in float32 at least, differentiable."""
    matrix = weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))
    # The scale keeps the squares of very large or small weights in range; the largest entry is 1 then.
    info = torch.finfo(matrix.dtype)
    scale = matrix.detach().abs().amax().clamp_min(info.tiny / info.eps)
    matrix = matrix / scale
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    # Not eigvalsh: it takes another algorithm when no gradient is needed, and the last digits would differ.
    return scale * torch.linalg.eigh(gram)[0][-1].clamp_min(0.5).sqrt()


def spectral_normed(module: nn.Module, bound: float = 1.0) -> nn.Module:
    """Parametrises `module.weight` by `SpectralNormalised` and returns the module.

    A linear layer is then `bound`-Lipschitz. A convolution of k by k taps is at most k `bound`-Lipschitz: it
    is the matrix of its filters that is normalised.
    """
    return parametrize.register_parametrization(module, "weight", SpectralNormalised(bound))


def weight_normed(module: nn.Module, dim: int = 0) -> nn.Module:
    """Parametrises `module.weight` as W = g v / ‖v‖, one norm per index of `dim`, and returns the module.

    `torch.nn.utils.parametrizations.weight_norm` (Salimans & Kingma 2016, "Weight normalization"): unlike the
    older `torch.nn.utils.weight_norm` it is cached during a solve and can be copied.

    Raises:
        ValueError: if a slice of the weight is zero and has no direction to keep.

    """
    weight = module.get_parameter("weight")
    front = dim % weight.ndim  # to torch, -1 means one norm for everything
    others = [d for d in range(weight.ndim) if d != front]
    zero = torch.linalg.vector_norm(weight.detach(), dim=others) == 0
    if not zero.is_meta and zero.any():  # without values there is nothing to look at
        raise ValueError(
            f"{int(zero.sum())} of {len(zero)} slices of the weight of {type(module).__name__} along "
            f"dimension {dim} are zero. Weight normalisation keeps directions, and zero has none: initialise "
            "with small values instead."
        )
    return parametrizations.weight_norm(module, dim=front)
