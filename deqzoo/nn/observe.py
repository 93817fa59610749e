"""Looking at the solves inside a network, at no cost to those who do not look."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from deqzoo.nn.solving_module import equilibria
from deqzoo.solution import Solution, Stats
from deqzoo.tree import State, detached


@dataclass
class Observed:
    """The solves of an observed network, in the order in which they ran.

    Attributes:
        solutions: (module name, solution) of every solve since the start or the last `clear`. The statistics are
            detached; `backward_stats` appears in them once a backward pass has run.

    """

    solutions: list[tuple[str, Solution[State]]] = field(default_factory=list)

    def clear(self) -> None:
        """Forgets what was seen."""
        self.solutions.clear()

    @property
    def judged(self) -> "Observed":
        """The solves that had a tolerance to reach, which fixed budgets have not."""
        return Observed([(name, solution) for name, solution in self.solutions if not solution.stats.fixed_budget])

    @property
    def num_steps(self) -> Tensor:
        """(B,) evaluations of each sample, summed over the solves."""
        return torch.stack([stats.num_steps for stats in self._stats]).sum(0)

    @property
    def residual(self) -> Tensor:
        """(B,) the worst residual of each sample."""
        return torch.stack([stats.residual for stats in self._stats]).amax(0)

    @property
    def converged(self) -> Tensor:
        """(B,) bool: the samples of which every solve converged."""
        return torch.stack([stats.converged for stats in self._stats]).all(0)

    @property
    def status(self) -> Tensor:
        """(B,) the worst `Status` code of each sample."""
        return torch.stack([stats.status for stats in self._stats]).amax(0)

    @property
    def _stats(self) -> list[Stats]:
        if not self.solutions:
            raise ValueError("There was no solve to look at. Run the network inside the `with` block first.")
        return [solution.stats for _, solution in self.solutions]


@contextmanager
def observe_equilibria(net: nn.Module) -> Iterator[Observed]:
    """Yields an `Observed` that fills as `net` runs: `with observe_equilibria(net) as seen: net(x)`.

    Observers see what they asked for and leave nothing behind; several may look at once.
    """
    seen = Observed()
    with ExitStack() as stack:
        for name, module in equilibria(net).items():
            observer = partial(_record, seen, name)
            module._observers.append(observer)
            stack.callback(module._observers.remove, observer)
        yield seen


def _record(seen: Observed, name: str, solution: Solution[State]) -> None:
    seen.solutions.append(
        (name, Solution(value=detached(solution.value), stats=solution.stats, backward_log=solution.backward_log))
    )
