"""Fixed budgets inside of `torch.compile`: one graph, the same numbers. Solves that decide on the host stay outside."""

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit, Phantom
from deqzoo.fixed_point import fixed_point
from deqzoo.nn import Cell, ImplicitModule, nonnegative
from deqzoo.solvers import Anderson, FixedPointSolver, NewtonKrylov, Picard

from .catalogue import PAIRS, _pair, every_solver, tuned

# Raised inside of torch, which looks at every input of a graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

TRACEABLE = [pair for pair in PAIRS if pair[1].traceable]
every_traceable_pair = pytest.mark.parametrize("pair", TRACEABLE, ids=_pair)


class Tanh(Cell):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nonnegative(nn.Linear(16, 16))
        with torch.no_grad():
            self.linear.weight *= 0.1

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(self.linear(z)) + x

    def initial_state(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def budget(solver: FixedPointSolver, steps: int = 2) -> FixedPointSolver:
    changes = {"inner_steps": 1} if isinstance(solver, NewtonKrylov) else {}
    return tuned(solver, rtol=0, max_steps=steps, **changes)


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@every_solver
def test_a_fixed_budget_without_gradients_is_one_graph(solver):
    net = nn.Sequential(nn.Linear(3, 16), ImplicitModule(Tanh(), solver=budget(solver, 3), adjoint=Implicit()))
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    x = torch.randn(4, 3)
    with torch.no_grad():
        assert torch.equal(compiled(x), net(x))
    if isinstance(solver, Picard):
        with torch.inference_mode():
            assert torch.equal(compiled(x), net(x))


@every_traceable_pair
def test_a_fixed_budget_with_gradients_is_one_graph(pair):
    solver, adjoint = pair
    net = nn.Sequential(nn.Linear(3, 16), ImplicitModule(Tanh(), solver=budget(solver), adjoint=adjoint))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 3)
    values, gradients = zip(
        *((out, torch.autograd.grad(out.square().sum(), list(net.parameters()))) for out in (compiled(x), net(x))),
        strict=True,
    )
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_statistics_come_out_of_the_graph():
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        found = fixed_point(lambda z, x: 0.5 * torch.sin(z) + x, torch.zeros_like(x), x, solver=budget(Anderson(), 5))
        return found.value, found.stats.residual, found.stats.status, found.stats.num_evals

    x = torch.randn(3, 7)
    with torch.no_grad():
        results = torch.compile(run, backend="eager", fullgraph=True)(x), run(x)
    for got, wanted in zip(*results, strict=True):
        assert got == wanted if isinstance(got, int) else torch.equal(got, wanted)


def test_autocast_reaches_the_cell_in_a_graph():
    net = ImplicitModule(Tanh(), solver=budget(Anderson(), 3), adjoint=Implicit())
    compiled, x = torch.compile(net, backend="eager", fullgraph=True), torch.randn(4, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), net(x))
    with torch.no_grad():
        exact = net(x)
        assert torch.equal(compiled(x), exact)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(compiled(x), exact)


def test_states_may_be_nests_in_a_graph():
    def run(x: Tensor) -> tuple:
        start = (torch.zeros(2, 3), (torch.zeros(2, 1, 4),))
        f = lambda z: (0.5 * z[0] + x, (0.3 * z[1][0] + z[0].mean(1)[:, None, None],))  # noqa: E731
        return fixed_point(f, start, solver=budget(Picard(), 6)).value

    x = torch.randn(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(run, backend="eager", fullgraph=True)(x), run(x))


def test_a_map_that_writes_into_its_state_is_right_in_a_graph():
    def run(x: Tensor) -> Tensor:
        return fixed_point(lambda z: z.mul_(0.5).add_(x), torch.zeros(2, 3), solver=budget(Anderson(), 6)).value

    x = torch.rand(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(run, backend="eager", fullgraph=True)(x), 2 * x)


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [(Anderson(), Phantom()), (budget(Picard()), Implicit())],
    ids=["adaptive", "implicit gradients"],
)
def test_what_decides_on_the_host_stays_out_of_graphs(solver, adjoint):
    net = nn.Sequential(nn.Linear(3, 16), ImplicitModule(Tanh(), solver=solver, adjoint=adjoint))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled, x = torch.compile(net, backend=backend), torch.randn(4, 3)
    gradients = [torch.autograd.grad(n(x).square().sum(), list(net.parameters())) for n in (compiled, net)]
    torch.testing.assert_close(*gradients)
    assert not any("tanh" in str(node.target) for graph in graphs for node in graph.graph.nodes)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(net, backend="eager", fullgraph=True)(x)
