"""Explicit Runge-Kutta methods as tables of coefficients, and the one step that all of them take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(h (B, N), t (B,)) -> h' (B, N), whose rows do not mix."""


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """k_s = f(t + c_s Δ, h + Δ Σ_r a_sr k_r) for stages s, then h + Δ Σ_s b_s k_s (Butcher's tableau).

    Attributes:
        a: the strictly lower triangle, one row per stage; the first is empty.
        b: weights of the stages.
        c: where in the step the stages lie.
        order: the error of one step is of order Δ to the power order + 1.

    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What a step of each sample is made of.

    Attributes:
        states: (B, N) each, where f was evaluated; the first is where the step starts.
        slopes: (B, N) each, f there.
        end: (B, N) where the step ends.

    """

    states: list[Tensor]
    slopes: list[Tensor]
    end: Tensor


def take_step(
    tableau: Tableau, f: Field, h: Tensor, times: Tensor, dt: Tensor, first_slope: Tensor | None = None
) -> Stages:
    """Returns a step from h (B, N), of each sample's own length.

    Free of in-place operations, so that autograd can run through it. Every number of a sample comes from sums and
    products of its own, each rounded by itself: the batch has no influence on any digit.

    Args:
        tableau: the method.
        f: the field.
        h: where the step starts.
        times: (S, B) of the stages.
        dt: (B, 1) the lengths; a sample with length 0 stays where it is.
        first_slope: (B, N) f(h, times[0]), if it is known already.

    """
    states, slopes = [h], [f(h, times[0]) if first_slope is None else first_slope]
    for row, t in zip(tableau.a[1:], times[1:], strict=True):
        state = h + dt * weighted_sum(row, slopes)
        states.append(state)
        slopes.append(f(state, t))
    return Stages(states=states, slopes=slopes, end=h + dt * weighted_sum(tableau.b, slopes))


def weighted_sum(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """Returns Σ wᵢ xᵢ, leaving out weights of zero."""
    total: Tensor | None = None
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            total = term * weight if total is None else torch.add(total, term, alpha=weight)
    assert total is not None
    return total


EULER = Tableau(a=((),), b=(1.0,), c=(0.0,), order=1)

CLASSIC = Tableau(
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), c=(0.0, 1 / 2, 1 / 2, 1.0), order=4
)

# J. R. Dormand & P. J. Prince, "A family of embedded Runge-Kutta formulae", J. Comp. Appl. Math. 6 (1980), 19-26.
DORMAND_PRINCE = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
    order=5,
)

DORMAND_PRINCE_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""What b has over the embedded method of order 4; its last slope is f at the end of the step."""
