"""How gradients get back through an equilibrium."""

from deqzoo.adjoints.base import Adjoint
from deqzoo.adjoints.implicit import Implicit
from deqzoo.adjoints.one_step import OneStep
from deqzoo.adjoints.phantom import Phantom
from deqzoo.adjoints.reversible import Reversible
from deqzoo.adjoints.unrolled import Unrolled

__all__ = ["Adjoint", "Implicit", "OneStep", "Phantom", "Reversible", "Unrolled"]
