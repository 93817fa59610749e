"""Implicit modules with every adjoint: copies, files, moving averages, compilation, optimisers."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deqzoo.adjoints import Implicit
from deqzoo.nn import Cell, ImplicitModule, nonnegative, weight_normed
from deqzoo.solvers import Anderson, Picard

from .catalogue import every_pair, tuned
from .test_gradients import assert_gradients


class Tanh(Cell):
    def __init__(self, parametrised: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        nn.init.normal_(self.linear.weight, std=0.1)
        if parametrised:
            weight_normed(self.linear)

    def forward(self, z, x):
        return torch.tanh(self.linear(z)) + x

    def initial_state(self, x):
        return torch.zeros_like(x)


def network(solver, adjoint, **how) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), ImplicitModule(Tanh(**how), solver=solver, adjoint=adjoint), nn.Linear(5, 2))


def step(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out = net(x)
    return out.detach(), *torch.autograd.grad(out.square().sum(), list(net.parameters()))


@every_pair
def test_copies_compute_the_same_and_share_nothing(pair):
    net = network(*pair)
    x = torch.randn(4, 3)
    before = step(net, x)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(file, weights_only=False)):
        assert all(map(torch.equal, step(twin, x), before))
        with torch.no_grad():
            for p in twin.parameters():
                p.zero_()
    assert all(map(torch.equal, step(net, x), before))


@every_pair
def test_a_module_can_be_copied_between_forward_and_backward(pair):
    net = network(*pair)
    out = net(torch.randn(4, 3))
    twin = copy.deepcopy(net)
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(p.grad is None for p in twin.parameters())


@every_pair
def test_moving_averages_follow(pair):
    net = network(*pair)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        averaged.update_parameters(net)
    x = torch.randn(4, 3)
    assert averaged(x).isfinite().all()
    assert not torch.equal(averaged(x), net(x))


@every_pair
def test_parametrised_weights_get_their_gradient(pair):
    """A cache of weights that outlives the solve would silently stop their training."""
    solver, adjoint = pair
    net = network(tuned(solver, rtol=1e-6, max_steps=100), adjoint, parametrised=True)
    gradients = step(net, torch.randn(4, 3))[1:]
    assert all(g.abs().sum() > 0 for g in gradients)


def test_a_parametrised_weight_is_computed_once_per_solve(monkeypatch):
    cell = Tanh()
    nonnegative(cell.linear)
    calls = []
    original = type(cell.linear.parametrizations.weight[0]).forward
    monkeypatch.setattr(
        type(cell.linear.parametrizations.weight[0]),
        "forward",
        lambda self, *a: calls.append(1) or original(self, *a),
    )
    module = ImplicitModule(cell, solver=Picard(rtol=0, max_steps=9), adjoint=Implicit())
    module(torch.rand(2, 5) * 0.01)
    assert len(calls) == 2  # one for the solve, one for the graph


@every_pair
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo's own doing
def test_compiling_around_it_changes_nothing(pair):
    torch._dynamo.reset()
    net = network(*pair)
    x = torch.randn(4, 3)
    compiled = torch.compile(net, backend="eager")
    assert all(map(torch.equal, step(compiled, x), step(net, x)))
    torch._dynamo.reset()


@every_pair
def test_training_with_frozen_or_live_inputs_gives_the_same_weight_gradients(pair):
    solver, adjoint = pair
    module = ImplicitModule(Tanh(), solver=solver, adjoint=adjoint)
    x = torch.randn(4, 5)
    frozen = torch.autograd.grad(module(x).sum(), list(module.parameters()))
    live = torch.autograd.grad(module(x.clone().requires_grad_()).sum(), list(module.parameters()))
    assert_gradients(frozen, live, 1e-6)


@every_pair
def test_checkpointing_around_it_works(pair):
    net = network(*pair)
    x = torch.randn(4, 3)
    plain = step(net, x)[1:]
    out = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
    assert_gradients(torch.autograd.grad(out.square().sum(), list(net.parameters())), plain, 1e-6)


def peak_bytes(run) -> int:
    """Returns the most bytes that tensors on the CPU held at once while `run` ran."""
    run()  # what is made once is made now
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("solver", [Picard(rtol=0), Anderson(rtol=0)], ids=lambda s: type(s).__name__)
def test_implicit_memory_does_not_grow_with_the_iterations(solver):
    class Conv(Cell):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1)
            )
            nn.init.normal_(self.layers[3].weight, std=0.02)

        def forward(self, z, x):
            return torch.tanh(self.layers(z)) + x

        def initial_state(self, x):
            return torch.zeros_like(x)

    module = ImplicitModule(Conv(), solver=solver, adjoint=Implicit(), unconverged="ignore")
    x = torch.randn(8, 8, 16, 16)

    def measure(steps: int) -> int:
        module.solver = tuned(solver, max_steps=steps)
        return peak_bytes(lambda: module(x).square().sum().backward())

    few, many = measure(4), measure(64)
    assert few > 8 * x.numel()
    assert many <= 1.1 * few
