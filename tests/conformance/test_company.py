"""Equilibria in company: inside of others, beside other threads, across processes."""

import threading

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deqzoo import adjoints, fixed_point, solvers
from deqzoo.nn import Cell, ImplicitModule, nonnegative

from .problems import contraction, relative_error


class Affine(Cell):
    """z ↦ tanh(A z) + x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(contraction(6, 0.5))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(z)) + x

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def module(adjoint: adjoints.Adjoint | None = None) -> ImplicitModule:
    return ImplicitModule(
        Affine(),
        solver=solvers.Anderson(rtol=1e-12),
        adjoint=adjoint or adjoints.Implicit(solver=solvers.GMRES(rtol=1e-12)),
    )


@pytest.mark.parametrize(
    "solver", [solvers.Picard(rtol=1e-12), solvers.Anderson(rtol=1e-12), solvers.Broyden(rtol=1e-12)]
)
def test_a_cell_may_hold_an_equilibrium(solver):
    inner, x = module(), torch.randn(3, 6, dtype=torch.float64)

    def outer(z: Tensor, x: Tensor) -> Tensor:
        return 0.3 * inner(z) + x

    def unrolled(x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(60):
            y = torch.zeros_like(x)
            for _ in range(60):
                y = inner.cell(y, z)
            z = 0.3 * y + x
        return z

    implicit = adjoints.Implicit(solver=solvers.GMRES(rtol=1e-12))
    for forward in (
        unrolled,
        lambda x: fixed_point(outer, torch.zeros_like(x), x, solver=solver, adjoint=implicit).value,
    ):
        inner.zero_grad()
        leaf = x.clone().requires_grad_()
        (forward(leaf) ** 2).sum().backward()
        got = leaf.grad, inner.cell.linear.weight.grad.clone()
        if forward is unrolled:
            want = got
    assert relative_error(got[0], want[0]) < 1e-8
    assert relative_error(got[1], want[1]) < 1e-8


def test_threads_do_not_take_each_others_weights():
    """A solve that caches parametrised weights must not hand them to a graph that another thread builds."""
    nets = [module(), module()]
    for net in nets:
        nonnegative(net.cell.linear)
    x, failures = torch.randn(4, 6, dtype=torch.float64), []

    def evaluate() -> None:
        with torch.no_grad():
            for _ in range(60):
                nets[0](x)

    def train() -> None:
        for _ in range(30):
            for net in nets:
                net.zero_grad()
                net(x).sum().backward()
                failures.extend(p for p in net.parameters() if p.grad is None)

    threads = [threading.Thread(target=target) for target in (evaluate, train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _train_step(rank: int, address: str, want: dict[str, Tensor], x: Tensor, errors) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        net = DistributedDataParallel(module())
        # Two steps before one synchronisation, as with gradient accumulation.
        with net.no_sync():
            net(x[rank::2]).square().mean().backward()
        net(x[rank::2]).square().mean().backward()
        for name, parameter in net.module.named_parameters():
            errors[rank] = max(errors[rank], relative_error(parameter.grad, want[name]))
        errors[rank + 2] = 1
    finally:
        torch.distributed.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    net, x = module(), torch.randn(8, 6, dtype=torch.float64)
    (2 * net(x).square().mean()).backward()
    want = {name: parameter.grad for name, parameter in net.named_parameters()}
    errors = mp.get_context("spawn").Array("d", 4)
    mp.spawn(_train_step, (f"file://{tmp_path}/rendezvous", want, x, errors), nprocs=2)
    assert list(errors[2:]) == [1, 1]
    assert max(errors[:2]) < 1e-10
