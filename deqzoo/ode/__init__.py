"""Ordinary differential equations h' = f(h, t): integrators with a time for each sample, and their adjoints."""

from deqzoo.ode.adjoint import ODEAdjoint
from deqzoo.ode.base import Integrator
from deqzoo.ode.checkpointed import Checkpointed
from deqzoo.ode.continuous import Continuous
from deqzoo.ode.dormand_prince import DormandPrince
from deqzoo.ode.fixed_steps import RK4, Euler
from deqzoo.ode.odeint import odeint
from deqzoo.ode.unrolled import Unrolled

__all__ = [
    "RK4",
    "Checkpointed",
    "Continuous",
    "DormandPrince",
    "Euler",
    "Integrator",
    "ODEAdjoint",
    "Unrolled",
    "odeint",
]
