"""Time inside of maps."""

import time

import torch
from torch import Tensor

from deqzoo import fixed_point
from deqzoo.adjoints import Implicit
from deqzoo.benchmark.watched_map import WatchedMap
from deqzoo.solvers import Picard


class _Slow(torch.autograd.Function):
    """Halves, in 2 ms; its gradients take 5."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        time.sleep(2e-3)
        return z / 2

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        time.sleep(5e-3)
        return gradients[0] / 2


def test_evaluations_and_both_times_are_added_up():
    x = torch.ones(2, 3, requires_grad=True)
    f = WatchedMap(lambda z: _Slow.apply(z) + x)
    backward = Implicit(solver=Picard(rtol=0, max_steps=4))
    found = fixed_point(f, torch.zeros(2, 3), solver=Picard(rtol=0, max_steps=6), adjoint=backward)
    assert f.evals == 7  # one of them with a graph
    assert f.forward_ms >= 14
    assert f.backward_ms == 0
    found.value.sum().backward()
    assert found.backward_stats is not None
    products = int(found.backward_stats.num_evals)
    assert 5 * products <= f.backward_ms
    assert f.evals == 7


def test_it_changes_no_value_and_no_gradient():
    x = torch.randn(2, 3, requires_grad=True)
    plain, watched = (torch.tanh(g(torch.ones(2, 3))) for g in (lambda z: z * x, WatchedMap(lambda z: z * x)))
    assert torch.equal(plain, watched)
    assert torch.equal(*(torch.autograd.grad(value.sum(), x)[0] for value in (plain, watched)))


def test_a_loop_passes_it_many_times():
    f = WatchedMap(_Slow.apply)
    z = torch.ones(1)
    for _ in range(3):
        z = f(z)
    start = time.perf_counter()
    _Slow.apply(_Slow.apply(z)).backward()  # two products that are not those of f
    whole = 1e3 * (time.perf_counter() - start)
    assert 15 <= f.backward_ms <= whole - 10
