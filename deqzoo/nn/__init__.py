"""Parts that implicit models are made of."""

from deqzoo.nn.cell import Cell
from deqzoo.nn.dropout import VariationalDropout
from deqzoo.nn.implicit_module import ImplicitModule, equilibria
from deqzoo.nn.observe import Observed, observe_equilibria
from deqzoo.nn.parametrizations import (
    NonNegative,
    SpectralNormalised,
    nonnegative,
    spectral_normed,
    weight_normed,
)
from deqzoo.nn.runtime import set_runtime

__all__ = [
    "Cell",
    "ImplicitModule",
    "NonNegative",
    "Observed",
    "SpectralNormalised",
    "VariationalDropout",
    "equilibria",
    "nonnegative",
    "observe_equilibria",
    "set_runtime",
    "spectral_normed",
    "weight_normed",
]
