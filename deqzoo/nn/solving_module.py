"""What modules that solve for their output have in common."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from deqzoo.adjoints import Adjoint
from deqzoo.errors import AdjointError, SolverError, StructureError
from deqzoo.ode import Integrator, ODEAdjoint
from deqzoo.solution import Policy, Solution
from deqzoo.solvers import FixedPointSolver
from deqzoo.tree import State

AnySolver: TypeAlias = FixedPointSolver | Integrator
AnyAdjoint: TypeAlias = Adjoint | ODEAdjoint

S = TypeVar("S", bound=AnySolver)
A = TypeVar("A", bound=AnyAdjoint)


class SolvingModule(nn.Module, abc.ABC, Generic[S, A]):
    """A module whose output is the solution of an equation that an inner module defines.

    `solver`, `adjoint` and `unconverged` are no part of the architecture: they are absent from the state dict and may
    be reassigned at any time.

    Args:
        inner: what defines the equation.
        solver: how to find the solution.
        adjoint: how gradients get back.
        unconverged: what to do about samples that miss the tolerance.

    Raises:
        StructureError: if `inner` holds a layer that mixes samples or draws new noise in each evaluation.
        SolverError: if `solver` solves another kind of equation.
        AdjointError: if `adjoint` is for another kind of equation.

    """

    task: ClassVar[str]
    """What is solved, for messages."""

    solver_kind: ClassVar[type[AnySolver]]
    adjoint_kind: ClassVar[type[AnyAdjoint]]

    def __init__(self, inner: nn.Module, *, solver: S, adjoint: A, unconverged: Policy) -> None:
        super().__init__()
        _refuse_mixing(inner)
        self.check_runtime(solver, adjoint)
        self.solver = solver
        self.adjoint = adjoint
        self.unconverged: Policy = unconverged
        self._observers: list[Callable[[Solution[State]], None]] = []

    @classmethod
    def check_runtime(cls, solver: AnySolver, adjoint: AnyAdjoint) -> None:
        """Checks that `solver` and `adjoint` are of the kind that this module needs; raises as the class does."""
        if not isinstance(solver, cls.solver_kind):
            raise SolverError(
                f"{cls.__name__} got solver={type(solver).__name__}. It {cls.task}: take one "
                f"from {cls.solver_kind.__module__.rpartition('.')[0]}."
            )
        if not isinstance(adjoint, cls.adjoint_kind):
            raise AdjointError(
                f"{cls.__name__} got adjoint={type(adjoint).__module__}.{type(adjoint).__name__}. It {cls.task}: "
                f"take one from {cls.adjoint_kind.__module__.rpartition('.')[0]}."
            )

    def _tell(self, solution: Solution[State]) -> None:
        for observe in self._observers:
            observe(solution)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not what observers asked to see.
        return self.__dict__ | {"_observers": []}

    def extra_repr(self) -> str:
        return f"solver={self.solver}, adjoint={self.adjoint}"


def equilibria(net: nn.Module) -> dict[str, SolvingModule]:
    """Returns every `SolvingModule` in `net`, equilibria and ODEs, itself included, by its name there."""
    return {name: module for name, module in net.named_modules() if isinstance(module, SolvingModule)}


def _refuse_mixing(inner: nn.Module) -> None:
    for name, module in inner.named_modules():
        if isinstance(module, _BatchNorm):
            raise StructureError(
                f"The cell's layer {name!r} is a {type(module).__name__}, which mixes the samples of a batch and "
                "changes from step to step: what is solved is not defined. Use GroupNorm or LayerNorm."
            )
        if isinstance(module, _DropoutNd) and module.p > 0:
            raise StructureError(
                f"The cell's layer {name!r} is a {type(module).__name__}, which draws a new mask in each "
                "evaluation, so that no solution exists. Draw the mask with deqzoo.nn.VariationalDropout before "
                "the solve."
            )
