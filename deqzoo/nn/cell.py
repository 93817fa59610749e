"""Cells: the maps whose fixed points implicit models compute."""

import abc

from torch import Tensor, nn

from deqzoo.tree import State


class Cell(nn.Module, abc.ABC):
    """The map z ↦ f(z, *injection). It knows no solver and no gradient.

    The map must not change while it is solved: noise, such as a dropout mask, is drawn before the solve and comes in
    with the injection.
    """

    @abc.abstractmethod
    def forward(self, z: State, *injection: Tensor) -> State:
        """Returns f(z, *injection), of the structure of z."""

    @abc.abstractmethod
    def initial_state(self, *injection: Tensor) -> State:
        """Returns where a solve starts when nothing better is known, usually zeros (B, ...)."""
