"""A module whose output is the equilibrium of a cell."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from deqzoo.adjoints import Adjoint
from deqzoo.errors import StructureError
from deqzoo.fixed_point import fixed_point
from deqzoo.nn.cell import Cell
from deqzoo.solution import Policy, Solution
from deqzoo.solvers import FixedPointSolver
from deqzoo.tree import State


def equilibria(net: nn.Module) -> "dict[str, ImplicitModule]":
    """Returns every `ImplicitModule` in `net`, itself included, by its name there."""
    return {name: module for name, module in net.named_modules() if isinstance(module, ImplicitModule)}


class ImplicitModule(nn.Module):
    """injection ↦ z* = f(z*, injection).

    `solver`, `adjoint` and `unconverged` are no part of the architecture: they are absent from the state dict and may
    be reassigned at any time.

    Args:
        cell: f. It must treat samples separately and be the same map in each evaluation.
        solver: how to find z*.
        adjoint: how gradients get back.
        unconverged: what to do about samples that miss the tolerance.

    Raises:
        StructureError: if the cell holds a layer that mixes samples or draws new noise in each evaluation.

    """

    def __init__(self, cell: Cell, *, solver: FixedPointSolver, adjoint: Adjoint, unconverged: Policy = "warn") -> None:
        super().__init__()
        for name, module in cell.named_modules():
            if isinstance(module, _BatchNorm):
                raise StructureError(
                    f"The cell's layer {name!r} is a {type(module).__name__}, which mixes the samples of a batch and "
                    "changes from step to step: its fixed point is not defined. Use GroupNorm or LayerNorm."
                )
            if isinstance(module, _DropoutNd) and module.p > 0:
                raise StructureError(
                    f"The cell's layer {name!r} is a {type(module).__name__}, which draws a new mask in each "
                    "evaluation, so that no fixed point exists. Draw the mask with deqzoo.nn.VariationalDropout before "
                    "the solve."
                )
        self.cell = cell
        self.solver = solver
        self.adjoint = adjoint
        self.unconverged: Policy = unconverged
        self._observers: list[Callable[[Solution[State]], None]] = []

    def forward(self, *injection: Tensor, z0: State | None = None) -> State:
        """Returns the equilibrium for an injection (B, ...), from `z0` if given, else from the cell's initial state."""
        return self.solve(*injection, z0=z0).value

    def solve(self, *injection: Tensor, z0: State | None = None) -> Solution[State]:
        """Does what calling does and returns the whole solution: the equilibrium, its cost and how it ended."""
        start = self.cell.initial_state(*injection) if z0 is None else z0
        solution = fixed_point(
            self.cell, start, *injection, solver=self.solver, adjoint=self.adjoint, unconverged=self.unconverged
        )
        for observe in self._observers:
            observe(solution)
        return solution

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not what observers asked to see.
        return self.__dict__ | {"_observers": []}

    def extra_repr(self) -> str:
        return f"solver={self.solver}, adjoint={self.adjoint}"
