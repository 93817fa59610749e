"""Parts that implicit models are made of."""

from deqzoo.nn.cell import Cell
from deqzoo.nn.implicit_module import ImplicitModule
from deqzoo.nn.observe import Observed, observe_equilibria
from deqzoo.nn.parametrizations import NonNegative, nonnegative
from deqzoo.nn.runtime import set_runtime

__all__ = [
    "Cell",
    "ImplicitModule",
    "NonNegative",
    "Observed",
    "nonnegative",
    "observe_equilibria",
    "set_runtime",
]
