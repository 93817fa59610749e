"""What a solve returns: its value, what it cost, and how it ended for each sample."""

import sys
import warnings
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from torch import Tensor

from deqzoo.errors import SolverError, UnconvergedWarning

T = TypeVar("T")
Policy: TypeAlias = Literal["ignore", "warn", "raise"]
"""What to do about samples that did not converge."""


class Status(IntEnum):
    """How the solve of one sample ended."""

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NONFINITE = 3

    def describe(self) -> str:
        """Returns the status as words that fit behind "3 of 64 samples"."""
        return _WORDS[self]


_WORDS = {
    Status.CONVERGED: "reached the tolerance",
    Status.MAX_STEPS: "ran out of steps (raise `max_steps` or loosen `rtol`)",
    Status.STALLED: "stopped improving (the map may not contract there, or `rtol` is below what the dtype resolves)",
    Status.NONFINITE: "met NaN or inf (look at the input first, then at the weights)",
}


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The cost and outcome of a solve, per sample of a batch of B. Detached from any graph.

    Attributes:
        num_evals: evaluations of f for the whole batch (of vector-Jacobian products in a backward solve).
        num_steps: (B,) the evaluation at which each sample reached its residual.
        residual: (B,) ‖f(z) − z‖ / ‖f(z)‖ of the z that is returned.
        status: (B,) a `Status` code each.
        fixed_budget: whether there was a budget to spend, and no tolerance to reach.

    """

    num_evals: int
    num_steps: Tensor
    residual: Tensor
    status: Tensor
    fixed_budget: bool = False

    @property
    def converged(self) -> Tensor:
        """(B,) bool: which samples reached the tolerance."""
        return self.status == Status.CONVERGED

    def __str__(self) -> str:
        """One sentence for each outcome that occurred."""
        total = len(self.status)
        counts = [(s, int((self.status == s).sum())) for s in Status]
        words = _WORDS | {Status.MAX_STEPS: "spent their budget"} if self.fixed_budget else _WORDS
        told = "; ".join(f"{n} of {total} samples {words[s]}" for s, n in counts if n)
        worst = f", worst residual {float(self.residual.max()):.2g}" if total else ""
        return f"{told or 'no samples'} ({self.num_evals} evaluations{worst})"


@dataclass(frozen=True, kw_only=True)
class Solution(Generic[T]):
    """An equilibrium z = f(z) for a batch.

    Attributes:
        value: each sample's best iterate, with the gradient that the adjoint gives it.
        stats: of the forward solve.
        state: the solver's last internal state. Solvers return it, `fixed_point` does not keep it.
        backward_log: holds the statistics of the latest backward solve, once there was one.

    """

    value: T
    stats: Stats
    state: Any = None
    backward_log: list[Stats] = field(default_factory=list, repr=False)

    @property
    def backward_stats(self) -> Stats | None:
        """Statistics of the latest backward solve: None before one, or for adjoints that solve nothing."""
        return self.backward_log[-1] if self.backward_log else None

    def raise_if_failed(self) -> None:
        """Raises a `SolverError` unless every sample converged."""
        enforce(self.stats, "raise", "The forward solve")


def check_policy(policy: Policy) -> None:
    """Raises a `ValueError` for anything but a `Policy`."""
    if policy not in get_args(Policy):
        raise ValueError(f'unconverged={policy!r} is no policy. Choose "ignore", "warn" or "raise".')


def enforce(stats: Stats, policy: Policy, subject: str) -> None:
    """Applies `policy` to the samples that did not converge. Reads the device once unless it is "ignore".

    Raises:
        SolverError: under "raise", naming how many samples failed and how.

    """
    if policy == "ignore" or bool(stats.converged.all()):
        return
    message = (
        f"{subject} did not converge: {stats}. "
        'Pass unconverged="ignore" if that is wanted, as with fixed budgets; Stats says which samples.'
    )
    if policy == "raise":
        raise SolverError(message)
    warnings.warn(message, UnconvergedWarning, stacklevel=_caller_level())


def _caller_level() -> int:
    """Returns the stacklevel, as seen from `enforce`, of the innermost frame outside of this library and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("deqzoo", "torch"):
        frame, level = frame.f_back, level + 1
    return level
