"""Tools that keep equilibria stable, and that measure how stable they are."""

from deqzoo.stability.correction import corrected_fixed_point, correction_loss
from deqzoo.stability.growth import dominant_growth
from deqzoo.stability.penalty import jacobian_penalty
from deqzoo.stability.spectrum import SpectralRadius, spectral_radius

__all__ = [
    "SpectralRadius",
    "corrected_fixed_point",
    "correction_loss",
    "dominant_growth",
    "jacobian_penalty",
    "spectral_radius",
]
