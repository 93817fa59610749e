"""The module whose output is an equilibrium."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit, OneStep, Unrolled
from deqzoo.errors import SolverError, StructureError, UnconvergedWarning
from deqzoo.fixed_point import fixed_point
from deqzoo.nn import Cell, ImplicitModule
from deqzoo.solvers import Anderson, Broyden, Picard

from .cells import TanhCell, inputs, linear


def equilibrium(layer: nn.Module | None = None, **runtime) -> ImplicitModule:
    runtime = {"solver": Anderson(rtol=1e-10), "adjoint": Implicit(solver=Anderson(rtol=1e-12))} | runtime
    return ImplicitModule(TanhCell(layer or linear(), 6), **runtime)


def test_the_output_is_a_fixed_point_of_the_cell():
    net, x = equilibrium(), inputs()
    z = net(x)
    torch.testing.assert_close(net.cell(z, x), z, rtol=1e-8, atol=1e-10)


def test_a_linear_cell_has_the_closed_form_solution_and_gradient():
    class Affine(Cell):
        def __init__(self) -> None:
            super().__init__()
            self.weight = linear().weight

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z @ self.weight.T + x

        def initial_state(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    net = ImplicitModule(Affine(), solver=Anderson(rtol=1e-12), adjoint=Implicit(solver=Anderson(rtol=1e-12)))
    x = inputs().requires_grad_()

    def solved(x: Tensor) -> Tensor:
        return torch.linalg.solve(torch.eye(6, dtype=torch.float64) - net.cell.weight, x.T).T

    torch.testing.assert_close(net(x), solved(x))
    for wanted in (x, net.cell.weight):
        got, truth = (torch.autograd.grad(f(x).square().sum(), wanted)[0] for f in (net, solved))
        torch.testing.assert_close(got, truth)


def test_the_solve_starts_where_it_is_told():
    net, x = equilibrium(solver=Picard(max_steps=1, rtol=0)), inputs()
    assert torch.equal(net(x), torch.zeros_like(x))
    assert torch.equal(net(x, z0=x), x)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm1d(6), "BatchNorm1d"),
        (nn.SyncBatchNorm(6), "SyncBatchNorm"),
        (nn.LazyBatchNorm1d(), "LazyBatchNorm1d"),
    ],
    ids=str,
)
def test_batch_norm_in_the_cell_is_refused(layer, name):
    inner = nn.Sequential(nn.Linear(6, 6), layer)
    with pytest.raises(
        StructureError,
        match=rf"The cell's layer 'layer\.1' is a {name}, which mixes the samples.*Use GroupNorm",
    ):
        equilibrium(inner)


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.1), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()], ids=str
)
def test_dropout_in_the_cell_is_refused(layer):
    with pytest.raises(
        StructureError, match=r"draws a new mask in each evaluation.*VariationalDropout before the solve"
    ):
        equilibrium(nn.Sequential(nn.Linear(6, 6), layer))


def test_solver_and_adjoint_are_no_architecture():
    net = equilibrium()
    assert set(net.state_dict()) == {"cell.layer.weight", "cell.layer.bias"}
    want = net(inputs())
    net.solver, net.adjoint = Broyden(rtol=1e-10), OneStep()
    torch.testing.assert_close(net(inputs()), want, rtol=1e-7, atol=1e-9)
    assert "Broyden(" in repr(net) and "OneStep()" in repr(net)


def test_the_policy_reaches_the_solve():
    net = equilibrium(solver=Picard(rtol=1e-12, max_steps=2), unconverged="raise")
    with pytest.raises(SolverError, match="3 of 3 samples ran out of steps"):
        net(inputs())
    net.unconverged = "warn"
    with pytest.warns(UnconvergedWarning, match="did not converge"):
        net(inputs())
    net.unconverged = "ignore"
    net(inputs())


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_solve_the_same_and_have_their_own_weights(clone):
    net = equilibrium()
    twin = clone(net)
    assert torch.equal(twin(inputs()), net(inputs()))
    assert (twin.solver, twin.adjoint, twin.unconverged) == (net.solver, net.adjoint, net.unconverged)
    with torch.no_grad():
        twin.cell.layer.bias.add_(1)
    assert not torch.allclose(twin(inputs()), net(inputs()))


def test_a_sample_alone_has_the_result_it_has_in_a_batch():
    net, x = equilibrium(), inputs(8)
    together = net(x)
    for i in range(8):
        torch.testing.assert_close(net(x[i : i + 1]), together[i : i + 1], rtol=1e-12, atol=1e-13)


def test_gradients_accumulate_over_two_solves():
    net = equilibrium()
    (net(inputs(seed=1)).sum() + net(inputs(seed=2)).sum()).backward()
    got = net.cell.layer.weight.grad.clone()
    net.zero_grad()
    net(inputs(seed=1)).sum().backward()
    net(inputs(seed=2)).sum().backward()
    torch.testing.assert_close(net.cell.layer.weight.grad, got)


def test_is_fixed_point_and_nothing_more():
    net, x = equilibrium(adjoint=Unrolled(), solver=Picard(rtol=1e-8)), inputs()
    want = fixed_point(net.cell, torch.zeros_like(x), x, solver=net.solver, adjoint=net.adjoint).value
    assert torch.equal(net(x), want)


def test_a_cell_without_its_methods_cannot_be_made():
    class Half(Cell):
        def forward(self, z: Tensor, *injection: Tensor) -> Tensor:
            return z

    with pytest.raises(TypeError, match="initial_state"):
        Half()
