"""Fixed-point correction: losses on the way to the equilibrium."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from deqzoo.adjoints import Adjoint, Implicit, OneStep
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Policy, Solution
from deqzoo.solvers import Anderson, FixedPointSolver
from deqzoo.tree import State, detached

Z = TypeVar("Z", bound=State)


def corrected_fixed_point(
    f: Callable[..., Z],
    z0: Z,
    *args: Any,
    at: Sequence[int],
    solver: FixedPointSolver = Anderson(),
    adjoint: Adjoint = Implicit(),
    correction: Adjoint = OneStep(),
    unconverged: Policy = "warn",
) -> list[Solution[Z]]:
    """Solves z = f(z, *args) and returns some states on the way, each with a gradient of its own.

    With `correction_loss`, training asks early iterates too for the right answer, which keeps the way to the
    equilibrium short and stable (Bai, Geng, Savani & Kolter 2022, "Deep equilibrium optical flow estimation",
    the sparse fixed-point correction):

        states = corrected_fixed_point(cell, z0, x, at=(4, 8))
        loss = correction_loss([criterion(head(state.value), y) for state in states])

    The solve is cut at the steps `at`, and each part starts at the best iterates of the part before, without
    its history. A part evaluates f there once more than an uncut solve would; with `Picard` the states are
    just those of the uncut solve.

    Args:
        f: maps a state, and `args`, to a state of the same structure and shapes.
        z0: where to start: a tensor (B, ...) or a nest of tuples of such tensors.
        *args: passed on to f.
        at: the steps to look at, increasing, above 1 (which is z0 itself) and below `solver.max_steps`.
        solver: how to find the solution; its `max_steps` is the budget of the whole.
        adjoint: how gradients get back from the equilibrium.
        correction: how they get back from the states before: by one step, or by several with `Phantom`.
        unconverged: what to do about samples that miss the tolerance in the end.

    Returns:
        One solution per entry of `at`, and the equilibrium last. Statistics count each part's own work.

    Raises:
        ValueError: if `at` is no such sequence.
        StructureError, SolverError, AdjointError: as `fixed_point` does.

    """
    marks = [1, *at, solver.max_steps]
    if any(late <= early for early, late in pairwise(marks)):
        raise ValueError(
            f"corrected_fixed_point got at={tuple(at)} for a solver of {solver.max_steps} steps. The steps "
            "to look at increase, lie above 1 and below max_steps: at=(4, 8), say."
        )
    found: list[Solution[Z]] = []
    start: Any = z0
    for early, late in pairwise(marks):
        last = late == solver.max_steps
        part = fixed_point(
            f,
            start,
            *args,
            solver=dataclasses.replace(solver, max_steps=late - early + 1),
            adjoint=adjoint if last else correction,
            unconverged=unconverged if last else "ignore",
        )
        found.append(part)
        start = detached(part.value)
    return found


def correction_loss(losses: Sequence[Tensor], gamma: float = 0.8) -> Tensor:
    """Returns Σₖ γ^(r−k) Lₖ for the losses L₁ … L_r of the states: that of the equilibrium counts in full.

    Args:
        losses: in the order of the states, all of one shape.
        gamma: γ in (0, 1]; how much less each earlier state counts.

    """
    if not losses:
        raise ValueError("correction_loss got no losses. It weighs one per state: pass the equilibrium's at least.")
    if not 0 < gamma <= 1:
        raise ValueError(f"correction_loss got gamma={gamma}. It must lie in (0, 1]: 0.8 is the usual choice.")
    weights = [gamma ** (len(losses) - k) for k in range(1, len(losses) + 1)]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum(0)
