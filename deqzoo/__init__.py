"""Implicit models for PyTorch: equilibrium layers, and a zoo of networks made of them.

    >>> import deqzoo
    >>> model = deqzoo.load("pcdeq-mnist")

Importing this is cheap: Lightning, torchvision and the Hub's client are imported by the calls that need them.
"""

from typing import TYPE_CHECKING, Any

from deqzoo import adjoints, errors, nn, ode, solvers, stability
from deqzoo.fixed_point import fixed_point
from deqzoo.nn import observe_equilibria
from deqzoo.ode import odeint
from deqzoo.solution import Solution, Stats, Status
from deqzoo.version import __version__
from deqzoo.zoo import create_model, describe, list_models, load

if TYPE_CHECKING:
    from deqzoo.benchmark.publish import publish

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
    "ode",
    "odeint",
    "publish",
    "solvers",
    "stability",
]


def __getattr__(name: str) -> Any:
    # It measures before it publishes, for which it needs Lightning.
    if name == "publish":
        from deqzoo.benchmark.publish import publish

        return publish
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
