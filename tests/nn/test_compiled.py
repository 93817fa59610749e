"""Compiled maps: the same values and gradients, and nothing that is left behind."""

import copy

import pytest
import torch
from torch import Tensor, nn

from deqzoo import create_model
from deqzoo.adjoints import Implicit, Phantom
from deqzoo.nn import compile_cells, equilibria, set_runtime
from deqzoo.solvers import Anderson

# Raised inside of torch, which looks at every input of a graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

SOLVER = Anderson(rtol=1e-5, max_steps=60)
# The backend of torch.compile that only traces: to compile graphs would take minutes.
TRACED = {"backend": "aot_eager"}


def network() -> nn.Module:
    torch.manual_seed(0)
    # In eval mode, so that no statistics change between two calls.
    return create_model("pcdeq-mnist-linear", solver=SOLVER, adjoint=Implicit(solver=SOLVER)).double().eval()


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(net(x).square().sum(), [*net.parameters()]))


@pytest.mark.parametrize("adjoint", [Implicit(solver=SOLVER), Phantom(steps=3)], ids=str)
def test_values_and_gradients_are_those_of_the_eager_map(adjoint):
    net = network()
    set_runtime(net, adjoint=adjoint)
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    wanted, values = gradients(net, x), net(x)
    keys = list(net.state_dict())
    compile_cells(net, **TRACED)
    assert list(net.state_dict()) == keys
    for got, want in zip(gradients(net, x), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(net(x), values, rtol=1e-6, atol=1e-10)
        # Another number of images, and weights that have changed since.
        assert net(x[:3]).shape == (3, 10)
        for p in net.parameters():
            p.mul_(1.1)
        fresh = network()
        fresh.load_state_dict(net.state_dict())
        torch.testing.assert_close(net(x), fresh(x), rtol=1e-6, atol=1e-10)


def test_adjoints_may_follow_each_other_on_one_compiled_map():
    net, eager = network(), network()
    compile_cells(net, **TRACED)
    x = torch.randn(3, 1, 28, 28, dtype=torch.float64)
    # The first goes through its graph once, the second many times.
    for adjoint in (Phantom(steps=2), Implicit(solver=SOLVER)):
        set_runtime(net, adjoint=adjoint)
        set_runtime(eager, adjoint=adjoint)
        for got, want in zip(gradients(net, x), gradients(eager, x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-10)


def test_the_map_is_compiled_and_copies_are_not():
    net = network()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_cells(net, backend=backend)
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        net(x)
        assert graphs
        met = len(graphs)
        copy.deepcopy(net)(x[:1])
    assert len(graphs) == met


def test_a_network_without_equilibria_is_refused():
    with pytest.raises(ValueError, match="no equilibrium, whose map could be compiled"):
        compile_cells(nn.Linear(2, 2))
    assert equilibria(network())
