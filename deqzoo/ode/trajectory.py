"""The steps that each sample took, its own first, second, ... side by side."""

import numpy as np
import torch
from torch import Tensor

from deqzoo.ode.base import Step, column


class Trajectory:
    """Gathers the accepted steps of a solve, without those that a sample had rejected.

    The k-th step of all samples, whenever each took it, is one step of the batch: there are as many as the busiest
    sample took. Samples that took fewer end with steps of length 0.

    Args:
        keep_states: whether to keep the states that the steps start from, too.

    """

    def __init__(self, *, keep_states: bool) -> None:
        self._keep_states = keep_states
        self._t: list[np.ndarray] = []
        self._dt: list[np.ndarray] = []
        self._states: list[Tensor] = []
        self._taken = np.zeros(0, dtype=np.int64)

    def visit(self, step: Step) -> None:
        """Adds a step."""
        rows = step.dt != 0
        if not self._dt:
            self._taken = np.zeros(len(rows), dtype=np.int64)
        state = step.stages.states[0]
        while len(self._dt) <= self._taken[rows].max(initial=-1):
            self._t.append(step.t.copy())
            self._dt.append(np.zeros(len(rows)))
            if self._keep_states:
                self._states.append(state)
        for k in np.unique(self._taken[rows]):
            here = rows & (self._taken == k)
            self._t[k][here], self._dt[k][here] = step.t[here], step.dt[here]
            if self._keep_states:
                kept = self._states[k]
                self._states[k] = state if here.all() else torch.where(column(here, state), state, kept)
        self._taken += rows

    def forget(self, rows: np.ndarray) -> None:
        """Makes the samples `rows` (B,) rest at zero in all steps: theirs led nowhere."""
        for dt in self._dt:
            dt[rows] = 0
        if rows.any():
            self._states = [state.masked_fill(column(rows, state), 0) for state in self._states]

    def steps(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (t (B,), dt (B,)) of each step of the batch."""
        return list(zip(self._t, self._dt, strict=True))

    def states(self) -> list[Tensor]:
        """Returns (B, N) the states that the steps start from, if they were kept."""
        return self._states
