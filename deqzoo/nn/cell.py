"""Cells: the maps whose fixed points implicit models compute."""

import abc
from typing import Any

from torch import nn

from deqzoo.fixed_point import Iteration


class Cell(nn.Module, abc.ABC):
    """The map z ↦ f(z, *injection). It knows no solver and no gradient.

    The map must not change while it is solved: noise, such as a dropout mask, is drawn before the solve and comes in
    with the injection.
    """

    @abc.abstractmethod
    def forward(self, z: Any, /, *injection: Any, **kwargs: Any) -> Any:
        """Returns f(z, *injection), a state of the structure of z."""

    @abc.abstractmethod
    def initial_state(self, *injection: Any, **kwargs: Any) -> Any:
        """Returns where a solve starts when nothing better is known, usually zeros (B, ...)."""

    def iterate(self, *injection: Any, **kwargs: Any) -> Iteration | None:
        """Returns what to iterate in place of f, with the same fixed points; None for f itself."""
        return None
