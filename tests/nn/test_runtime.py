"""Changing how a network solves."""

import pytest
import torch
from torch import nn

from deqzoo.adjoints import Implicit, OneStep
from deqzoo.nn import ImplicitModule, runtime_kept, set_runtime
from deqzoo.solvers import Anderson, Broyden, NewtonKrylov, Picard

from .cells import TanhCell, inputs, linear


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(
        ImplicitModule(TanhCell(linear(), 6), solver=Anderson(memory=3), adjoint=Implicit()),
        ImplicitModule(TanhCell(linear(seed=5), 6), solver=Picard(damping=0.5, max_steps=200), adjoint=Implicit()),
    )


def test_budgets_change_and_everything_else_stays(net):
    set_runtime(net, max_steps=77, rtol=1e-6)
    assert net[0].solver == Anderson(memory=3, max_steps=77, rtol=1e-6)
    assert net[1].solver == Picard(damping=0.5, max_steps=77, rtol=1e-6)
    assert net[0].adjoint == net[1].adjoint == Implicit()


def test_a_new_solver_brings_its_own_budget_unless_told(net):
    set_runtime(net, solver=Broyden(rtol=1e-3, max_steps=9))
    assert net[0].solver == net[1].solver == Broyden(rtol=1e-3, max_steps=9)
    set_runtime(net, solver=Broyden(rtol=1e-3, max_steps=9), max_steps=12)
    assert net[0].solver == Broyden(rtol=1e-3, max_steps=12)


def test_the_callers_solver_is_not_changed(net):
    solver = NewtonKrylov()
    set_runtime(net, solver=solver, rtol=1e-7)
    assert solver == NewtonKrylov() and net[0].solver.rtol == 1e-7


def test_the_adjoint_alone(net):
    set_runtime(net, adjoint=OneStep())
    assert net[0].adjoint == net[1].adjoint == OneStep()
    assert net[0].solver == Anderson(memory=3)


def test_a_zero_tolerance_is_a_setting_and_not_an_absence(net):
    set_runtime(net, rtol=0.0, max_steps=4)
    assert net[0].solver.fixed_budget
    assert net(inputs()).isfinite().all()


def test_nothing_changes_nothing(net):
    before = [(m.solver, m.adjoint) for m in net]
    set_runtime(net)
    assert [(m.solver, m.adjoint) for m in net] == before
    set_runtime(nn.Linear(2, 2))


def test_results_keep_to_the_new_tolerance(net):
    x = inputs()
    set_runtime(net[0], solver=Anderson(rtol=1e-12, max_steps=100))
    z = net[0](x)
    torch.testing.assert_close(net[0].cell(z, x), z, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "setting", [{"solver": Picard()}, {"adjoint": OneStep()}, {"max_steps": 3}, {"rtol": 0.0}], ids=str
)
def test_a_network_without_equilibria_is_refused(setting):
    with pytest.raises(ValueError, match="Linear has no equilibrium to solve"):
        set_runtime(nn.Linear(2, 2), **setting)


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"rtol": -1.0}])
def test_impossible_budgets_are_refused_and_leave_the_network_as_it_was(net, wrong):
    before = [m.solver for m in net]
    with pytest.raises(ValueError, match="got"):
        set_runtime(net, **wrong)
    assert [m.solver for m in net] == before


def test_what_is_changed_within_a_context_is_given_back(net):
    before = [(m.solver, m.adjoint) for m in net]

    def breaks() -> None:
        with runtime_kept(net):
            set_runtime(net, solver=Picard(), adjoint=OneStep())
            assert [(m.solver, m.adjoint) for m in net] == [(Picard(), OneStep())] * len(before)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        breaks()
    assert [(m.solver, m.adjoint) for m in net] == before


def test_unknown_settings_are_type_errors(net):
    with pytest.raises(TypeError):
        set_runtime(net, tol=1e-3)
