"""torchdeq's solvers as solvers of this library, so that both meet the same equations of the zoo's models.

Their own stopping, counting and best iterate are left as they are. locuslab's original files are not here: they are no
package, and torchdeq is by the same authors, grown out of them.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deqzoo.adjoints import Implicit
from deqzoo.errors import SolverError
from deqzoo.solution import Solution, Stats, Status
from deqzoo.solvers import FixedPointSolver, Map

PEER = "torchdeq"
Method = Literal["fixed_point_iter", "anderson", "broyden"]

# Evaluations before the first whose residual it looks at.
_BEFORE: dict[Method, int] = {"fixed_point_iter": 0, "anderson": 2, "broyden": 1}


@dataclass(frozen=True, kw_only=True)
class TorchDEQ(FixedPointSolver):
    """One of torchdeq's solvers, stopped by the relative residual of the worst sample, with its other defaults.

    Attributes:
        method: by torchdeq's name.
    """

    method: Method = "anderson"

    def solve(self, f: Map, z0: Tensor, fz0: Tensor | None = None) -> Solution[Tensor]:
        """Returns what torchdeq returns, from z0: it does not take f(z0)."""
        counted = _Counted(f)
        value, _, info = _solver(self.method)(
            counted, z0, max_iter=self.max_steps, tol=self.rtol, stop_mode="rel", indexing=None
        )
        # Its trace begins with a value for no evaluation, and is filled up to the budget.
        within = info["rel_trace"] < self.rtol
        first = within.int().argmax(dim=1) + _BEFORE[self.method]
        steps = torch.where(within.any(dim=1), first, counted.num_evals)
        residual = info["rel_lowest"]
        status = torch.where(residual < self.rtol, int(Status.CONVERGED), int(Status.MAX_STEPS))
        status = torch.where(residual.isfinite(), status, int(Status.NONFINITE))
        return Solution(
            value=value,
            stats=Stats(num_evals=counted.num_evals, num_steps=steps.long(), residual=residual, status=status),
        )


def peer_pairs(rtol: float, max_steps: int) -> Iterator[tuple[str, FixedPointSolver, str, Implicit]]:
    """Yields every solver of torchdeq with every one as backward solver, by name.

    Raises:
        SolverError: if torchdeq is not installed.
    """
    if importlib.util.find_spec("torchdeq") is None:
        raise SolverError(
            "torchdeq is not installed. Ratios need its solvers in the same run: pip install -e '.[bench]', or measure "
            "without --peers."
        )
    solvers = [TorchDEQ(method=method, rtol=rtol, max_steps=max_steps) for method in _BEFORE]
    for solver in solvers:
        for backward in solvers:
            yield f"{PEER} {solver.method}", solver, f"Implicit({PEER} {backward.method})", Implicit(solver=backward)


class _Counted:
    def __init__(self, f: Map) -> None:
        self._f, self.num_evals = f, 0

    def __call__(self, z: Tensor) -> Tensor:
        self.num_evals += 1
        return self._f(z)


def _solver(method: Method) -> Callable[..., Any]:
    from torchdeq.solver import get_solver  # pyright: ignore[reportMissingImports]

    return get_solver(method)
