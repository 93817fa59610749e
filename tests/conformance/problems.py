"""Fixed-point problems in float64 whose solutions are known or easily found, and how to compare with them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deqzoo.tree import State, leaves


@dataclass(frozen=True)
class Problem:
    """z = f(z, *args) from z0."""

    name: str
    f: Callable[..., State]
    z0: State
    args: tuple[Tensor, ...]

    def __str__(self) -> str:
        return self.name

    def reference(self) -> Tensor:
        """(B, N) the solution, by iterating far beyond any tolerance."""
        z = self.z0
        for _ in range(400):
            z = self.f(z, *self.args)
        return flat(z)

    def residual(self, value: State) -> Tensor:
        """(B,) ‖f(z) − z‖ / ‖f(z)‖, computed plainly."""
        fz = flat(self.f(value, *self.args)).detach()
        return (fz - flat(value).detach()).norm(dim=1) / fz.norm(dim=1)


def flat(state: State) -> Tensor:
    """Returns all numbers of each sample in a row (B, N)."""
    return torch.cat([leaf.reshape(leaf.shape[0], leaf[:1].numel()) for leaf in leaves(state)], dim=1)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Returns ‖found − wanted‖ / ‖wanted‖."""
    return float((found.detach() - wanted.detach()).norm() / wanted.detach().norm())


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contraction(size: int, factor: float, seed: int = 0) -> Tensor:
    """Returns a matrix (size, size) of spectral norm `factor`."""
    w = _random(size, size, seed=seed)
    return w * (factor / torch.linalg.matrix_norm(w, ord=2))


def linear(batch: int = 5, size: int = 7, factor: float = 0.6) -> Problem:
    """z = z W + x, with the closed form x (I − W)⁻¹."""
    return Problem(
        "linear",
        lambda z, x, w: z @ w + x,
        torch.zeros(batch, size, dtype=torch.float64),
        (_random(batch, size, seed=1), contraction(size, factor)),
    )


def _conv() -> Problem:
    kernel = _random(4, 4, 3, 3, seed=3) * 0.07
    return Problem(
        "convolution",
        lambda z, x: torch.tanh(F.conv2d(z, kernel, padding=1)) + x,
        torch.zeros(3, 4, 5, 5, dtype=torch.float64),
        (_random(3, 4, 5, 5, seed=4),),
    )


def _attention() -> Problem:
    q, v = contraction(6, 0.5, seed=5), contraction(6, 0.4, seed=6)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.softmax(z @ q @ z.mT, dim=-1) @ z @ v) + x

    x = 0.3 * _random(3, 4, 6, seed=7)
    return Problem("attention", f, torch.zeros_like(x), (x,))


def nest() -> Problem:
    """A state of three shapes, one of them (B,), that depend on each other."""

    def f(z: tuple, x: Tensor) -> tuple:
        a, (b, (c,)) = z
        pooled = a.mean((2, 3))
        return 0.5 * torch.tanh(a + b[:, :, None, None]) + x, (
            0.4 * torch.sin(pooled) + 0.1 * c[:, None],
            (0.3 * b.sum(1),),
        )

    z0 = (torch.zeros(4, 3, 2, 2), (torch.zeros(4, 3), (torch.zeros(4),)))
    z0 = (z0[0].double(), (z0[1][0].double(), (z0[1][1][0].double(),)))
    return Problem("nest", f, z0, (_random(4, 3, 2, 2, seed=8),))


PROBLEMS = [linear(), _conv(), _attention(), nest()]


def uneven(batch: int, size: int, dtype: torch.dtype) -> tuple[Callable[..., Tensor], Tensor, tuple[Tensor, Tensor]]:
    """A map of sums, products and quotients alone, whose samples need from a few steps to many."""
    rates = torch.linspace(0.05, 0.9, batch, dtype=torch.float64)[:, None]
    x = _random(batch, size, seed=9)

    def f(z: Tensor, x: Tensor, rate: Tensor) -> Tensor:
        return x - rate * z / (1 + z * z)

    return f, torch.zeros(batch, size, dtype=dtype), (x.to(dtype), rates.to(dtype))
