"""A module whose output is the equilibrium of a cell."""

import torch

from deqzoo.adjoints import Adjoint
from deqzoo.errors import AdjointError
from deqzoo.fixed_point import fixed_point
from deqzoo.nn.cell import Cell
from deqzoo.nn.solving_module import SolvingModule
from deqzoo.solution import Policy, Solution
from deqzoo.solvers import FixedPointSolver
from deqzoo.tree import State


class ImplicitModule(SolvingModule[FixedPointSolver, Adjoint]):
    """injection ↦ z* = f(z*, injection).

    Args:
        cell: f. It must treat samples separately and be the same map in each evaluation.
        solver: how to find z*.
        adjoint: how gradients get back.
        unconverged: what to do about samples that miss the tolerance.

    Raises:
        StructureError: if the cell holds a layer that mixes samples or draws new noise in each evaluation.

    """

    task = "solves for a fixed point"
    solver_kind = FixedPointSolver
    adjoint_kind = Adjoint

    def __init__(self, cell: Cell, *, solver: FixedPointSolver, adjoint: Adjoint, unconverged: Policy = "warn") -> None:
        super().__init__(cell, solver=solver, adjoint=adjoint, unconverged=unconverged)
        self.cell = cell

    def forward(self, *injection: State, z0: State | None = None) -> State:
        """Returns the equilibrium for an injection (B, ...), from `z0` if given, else from the cell's initial state."""
        return self.solve(*injection, z0=z0).value

    def solve(self, *injection: State, z0: State | None = None) -> Solution[State]:
        """Does what calling does and returns the whole solution: the equilibrium, its cost and how it ended.

        Raises:
            AdjointError: if the weights of the cell are spread over processes as a unit (FSDP) of their own.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            _refuse_sharding(self.cell)
        start = self.cell.initial_state(*injection) if z0 is None else z0
        solution = fixed_point(
            self.cell,
            start,
            *injection,
            solver=self.solver,
            adjoint=self.adjoint,
            iterate=self.cell.iterate(*injection),
            unconverged=self.unconverged,
        )
        self._tell(solution)
        return solution


def _refuse_sharding(cell: Cell) -> None:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    for name, module in cell.named_modules():
        if isinstance(module, FSDPModule | FullyShardedDataParallel):
            raise AdjointError(
                f"The cell's {name or 'own module'} is a unit of FSDP. It would be gathered for every evaluation of a "
                "solver, and some adjoints would leave its gradients unsynchronised: spread the whole network as one "
                "unit (deqzoo.tasks.Sharded), or this ImplicitModule."
            )
