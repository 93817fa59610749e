"""Looking at the solves inside a network."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit
from deqzoo.errors import SolverError
from deqzoo.nn import ImplicitModule, observe_equilibria
from deqzoo.solvers import Anderson, Picard

from .cells import TanhCell, inputs, linear


class Twice(nn.Module):
    """Two equilibria, run as second, first, second."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ImplicitModule(
            TanhCell(linear(gain=0.9), 6), solver=Picard(rtol=1e-8, max_steps=300), adjoint=Implicit()
        )
        self.second = ImplicitModule(TanhCell(linear(gain=0.2), 6), solver=Anderson(rtol=1e-8), adjoint=Implicit())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.second(x)))


@pytest.fixture
def net() -> Twice:
    return Twice()


def test_solves_are_seen_in_the_order_in_which_they_run(net):
    with observe_equilibria(net) as seen:
        out = net(inputs())
    assert [name for name, _ in seen.solutions] == ["second", "first", "second"]
    assert torch.equal(seen.solutions[-1][1].value, out)
    assert out.requires_grad and not any(s.value.requires_grad for _, s in seen.solutions)


def test_sums_and_worst_cases_are_per_sample(net):
    x = inputs() * torch.tensor([[0.0], [1.0], [10.0]])
    with observe_equilibria(net) as seen:
        net(x)
    stats = [s.stats for _, s in seen.solutions]
    assert torch.equal(seen.num_steps, stats[0].num_steps + stats[1].num_steps + stats[2].num_steps)
    assert len(set(seen.num_steps.tolist())) > 1
    assert torch.equal(
        seen.residual, torch.maximum(torch.maximum(stats[0].residual, stats[1].residual), stats[2].residual)
    )
    assert seen.converged.tolist() == [True] * 3


def test_one_solve_that_fails_marks_its_samples(net):
    net.first.solver, net.first.unconverged = Picard(rtol=1e-8, max_steps=6), "ignore"
    x = inputs()
    z = net.first(net.second(x[:1]).detach())
    assert z.shape == (1, 6)
    with observe_equilibria(net) as seen:
        net(x)
    stats = [s.stats for _, s in seen.solutions]
    assert stats[0].converged.all() and stats[2].converged.all() and not stats[1].converged.any()
    assert not seen.converged.any()


def test_several_look_at_once_and_each_stops_on_its_own(net):
    with observe_equilibria(net) as outer:
        net(inputs())
        with observe_equilibria(net) as inner:
            net(inputs())
        net(inputs())
    net(inputs())
    assert (len(outer.solutions), len(inner.solutions)) == (9, 3)


def test_part_of_a_network_can_be_observed(net):
    with observe_equilibria(net.second) as seen:
        net(inputs())
    assert [name for name, _ in seen.solutions] == ["", ""]


def test_nothing_is_left_behind_even_after_an_exception(net):
    net.first.solver, net.first.unconverged = Picard(rtol=1e-8, max_steps=2), "raise"
    before = {name: dict(vars(m)) for name, m in net.named_modules()}
    with pytest.raises(SolverError), observe_equilibria(net) as seen:
        net(inputs())
    assert [name for name, _ in seen.solutions] == ["second"]
    assert net.first._observers == net.second._observers == []
    assert {name: dict(vars(m)) for name, m in net.named_modules()}.keys() == before.keys()


def test_clear_forgets(net):
    with observe_equilibria(net) as seen:
        net(inputs())
        first = seen.num_steps
        seen.clear()
        assert seen.solutions == []
        net(inputs())
    assert torch.equal(seen.num_steps, first)


def test_backward_statistics_appear_once_there_are_any(net):
    with observe_equilibria(net) as seen:
        out = net(inputs())
    assert all(s.backward_stats is None for _, s in seen.solutions)
    out.sum().backward()
    assert all(s.backward_stats is not None and s.backward_stats.converged.all() for _, s in seen.solutions)


def test_observation_changes_no_result(net):
    want = net(inputs())
    with observe_equilibria(net):
        assert torch.equal(net(inputs()), want)


def test_a_module_that_is_shared_is_seen_once_per_solve(net):
    shared = nn.Sequential(net.second, net.second)
    with observe_equilibria(shared) as seen:
        shared(inputs())
    assert [name for name, _ in seen.solutions] == ["0", "0"]


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_copies_made_while_somebody_looks_are_not_observed(net, clone):
    with observe_equilibria(net) as seen:
        twin = clone(net)
        twin(inputs())
    assert seen.solutions == []
    twin(inputs())
    assert twin.first._observers == twin.second._observers == []


@pytest.mark.parametrize("what", ["num_steps", "residual", "converged"])
def test_summaries_of_nothing_say_what_is_missing(net, what):
    with observe_equilibria(net) as seen:
        pass
    with pytest.raises(ValueError, match="no solve"):
        getattr(seen, what)
