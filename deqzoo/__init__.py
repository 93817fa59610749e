"""Implicit models for PyTorch: equilibrium layers, and a zoo of networks made of them.

    >>> import deqzoo
    >>> model = deqzoo.load("pcdeq-mnist")

Importing this is cheap: Lightning, torchvision and the Hub's client are imported by the calls that need them.
"""

from deqzoo import adjoints, errors, nn, solvers, stability
from deqzoo.fixed_point import fixed_point
from deqzoo.nn import observe_equilibria
from deqzoo.solution import Solution, Stats, Status
from deqzoo.version import __version__
from deqzoo.zoo import create_model, describe, list_models, load

__all__ = [
    "Solution",
    "Stats",
    "Status",
    "__version__",
    "adjoints",
    "create_model",
    "describe",
    "errors",
    "fixed_point",
    "list_models",
    "load",
    "nn",
    "observe_equilibria",
    "solvers",
    "stability",
]
