"""Parts that implicit models are made of."""

from deqzoo.nn.cell import Cell
from deqzoo.nn.compiled import compile_cells
from deqzoo.nn.dropout import VariationalDropout
from deqzoo.nn.implicit_module import ImplicitModule
from deqzoo.nn.layout import lay_channels_last
from deqzoo.nn.observe import Observed, observe_equilibria
from deqzoo.nn.ode_module import Dynamics, ODEModule
from deqzoo.nn.parametrizations import (
    NonNegative,
    SpectralNormalised,
    nonnegative,
    spectral_normed,
    weight_normed,
)
from deqzoo.nn.runtime import runtime_kept, set_runtime
from deqzoo.nn.solving_module import AnyAdjoint, AnySolver, SolvingModule, equilibria
from deqzoo.nn.splitting import ForwardBackward, MonotoneOperator, PeacemanRachford, Splitting

__all__ = [
    "AnyAdjoint",
    "AnySolver",
    "Cell",
    "Dynamics",
    "ForwardBackward",
    "ImplicitModule",
    "MonotoneOperator",
    "NonNegative",
    "ODEModule",
    "Observed",
    "PeacemanRachford",
    "SolvingModule",
    "SpectralNormalised",
    "Splitting",
    "VariationalDropout",
    "compile_cells",
    "equilibria",
    "lay_channels_last",
    "nonnegative",
    "observe_equilibria",
    "runtime_kept",
    "set_runtime",
    "spectral_normed",
    "weight_normed",
]
