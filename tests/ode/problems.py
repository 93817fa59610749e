"""Initial value problems in float64, and everything that the package exports."""

import dataclasses
import inspect

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deqzoo import ode
from deqzoo.ode import Integrator, ODEAdjoint, odeint


def concrete(base: type) -> list[type]:
    """Returns the classes that deqzoo.ode exports, derive from `base` and can be made."""
    exported = [getattr(ode, name) for name in ode.__all__]
    return [c for c in exported if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)]


def make(kind: type, num_steps: int = 4, rtol: float = 1e-4) -> Integrator:
    """Returns an integrator with about that much care."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(num_steps=num_steps) if "num_steps" in fields else kind(rtol=rtol)


INTEGRATORS = concrete(Integrator)
ADJOINTS = [kind() for kind in concrete(ODEAdjoint)]

every_integrator = pytest.mark.parametrize("kind", INTEGRATORS, ids=lambda c: c.__name__)
every_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda a: type(a).__name__)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uneven(batch: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns h0 (B, N) and rates (B, 1) for `decay`: from a few steps to many."""
    rates = torch.logspace(-1, 2, batch, dtype=torch.float64)[:, None]
    return random(batch, size, seed=9).to(dtype), rates.to(dtype)


def decay(h: Tensor, t: Tensor, rate: Tensor) -> Tensor:
    """Sums and products alone."""
    return -rate * h * h * h + rate * t[:, None]


class Case:
    """h' = tanh(h W + s y) + t b, with arguments, one in a nest, and a captured leaf."""

    def __init__(self, batch: int = 4, size: int = 6) -> None:
        self.h0, self.y, self.b = random(batch, size, seed=1), random(batch, size, seed=2), random(1, size, seed=3)
        self.w = torch.nn.Parameter(random(size, size, seed=4) * 0.6)
        self.cotangent = random(batch, size, seed=5)
        self.leaves = (self.h0, self.y, self.b, self.w)
        for leaf in self.leaves:
            leaf.requires_grad_()

    def f(self, h: Tensor, t: Tensor, rest: tuple[Tensor, float], b: Tensor) -> Tensor:
        y, s = rest
        return torch.tanh(h @ self.w + s * y) + t[:, None] * b

    def solve(self, **how):
        return odeint(self.f, self.h0, (self.y, 0.5), self.b, **how)

    def loss(self, **how) -> Tensor:
        return (self.solve(**how).value * self.cotangent).sum()

    def gradients(self, **how) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.loss(**how), self.leaves)


def convolution(h: Tensor, t: Tensor, kernel: Tensor) -> Tensor:
    """h (B, 4, 5, 5)."""
    return torch.tanh(F.conv2d(h, kernel, padding=1)) * (1 + t[:, None, None, None])
