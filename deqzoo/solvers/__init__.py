"""Solvers of z = f(z) on matrices (B, N): they know no structure of states and no autograd."""

from deqzoo.solvers.anderson import Anderson
from deqzoo.solvers.base import AffineMap, FixedPointSolver, IterativeSolver, JudgedMap, Map
from deqzoo.solvers.broyden import Broyden
from deqzoo.solvers.gmres import GMRES
from deqzoo.solvers.newton_krylov import NewtonKrylov
from deqzoo.solvers.picard import Picard
from deqzoo.solvers.reversible import Reversible

__all__ = [
    "GMRES",
    "AffineMap",
    "Anderson",
    "Broyden",
    "FixedPointSolver",
    "IterativeSolver",
    "JudgedMap",
    "Map",
    "NewtonKrylov",
    "Picard",
    "Reversible",
]
