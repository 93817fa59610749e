"""Operator splittings: the fixed points of f, whatever is iterated, with the residuals and gradients of f."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import StructureError, UnconvergedWarning
from deqzoo.fixed_point import Iteration, fixed_point
from deqzoo.models.mondeq_cell import MonotoneCell
from deqzoo.models.mondeq_parts import MonotoneConv, MonotoneMatrix
from deqzoo.models.mondeq_tiers import MonotoneTiers
from deqzoo.nn import ForwardBackward, ImplicitModule, PeacemanRachford
from deqzoo.solvers import Anderson, Picard

from .catalogue import PAIRS, exact
from .problems import flat, relative_error

PRECISE = Anderson(rtol=1e-11, max_steps=600, patience=300)
SPLITTINGS = [ForwardBackward(), ForwardBackward(alpha=0.3), PeacemanRachford(), PeacemanRachford(alpha=2.0)]
every_splitting = pytest.mark.parametrize("splitting", SPLITTINGS, ids=str)


def operators(margin: float = 0.5) -> dict:
    """Returns an operator of every kind, in float64 and larger than it starts, with an x for each."""
    torch.manual_seed(1)
    found = {
        "matrix": (MonotoneMatrix(9, margin=margin), torch.randn(4, 9)),
        "convolution": (MonotoneConv(3, margin=margin), torch.randn(4, 3, 5, 6)),
        "tiers": (MonotoneTiers((3, 4), margin=margin), (torch.randn(4, 3, 6, 4), torch.randn(4, 4, 3, 2))),
        "odd tiers": (
            MonotoneTiers((2, 3, 2), margin=margin),
            tuple(torch.randn(4, *s) for s in ((2, 7, 5), (3, 4, 3), (2, 2, 2))),
        ),
    }
    for operator, _ in found.values():
        operator.double()
        with torch.no_grad():
            for p in operator.parameters():
                p.mul_(1.1)
    return {
        name: (operator, tuple(part.double() for part in x) if isinstance(x, tuple) else x.double())
        for name, (operator, x) in found.items()
    }


OPERATORS = list(operators())
every_operator = pytest.mark.parametrize("name", OPERATORS)


def leaves(x) -> list[torch.Tensor]:
    return [x] if isinstance(x, torch.Tensor) else list(x)


def long_solution(cell: MonotoneCell, x):
    """z* by many small steps that contract, with a graph of the last of them."""
    z = cell.initial_state(x)
    alpha = 1.2 * cell.operator.margin / cell.operator.lipschitz(x) ** 2
    step = ForwardBackward(alpha=min(1.0, alpha)).iterate(cell.operator, x)
    with torch.no_grad():
        for _ in range(500):
            z = step(z, x)
    for _ in range(500):
        z = step(z, x)
    return z


@every_operator
@every_splitting
def test_all_splittings_find_the_equilibrium_and_its_gradients(name, splitting):
    operator, x = operators()[name]
    if isinstance(splitting, PeacemanRachford) and isinstance(operator, MonotoneTiers):
        pytest.skip("refused, see below")
    for leaf in leaves(x):
        leaf.requires_grad_()
    cell = MonotoneCell(operator, splitting=splitting)
    module = ImplicitModule(cell, solver=PRECISE, adjoint=Implicit(solver=PRECISE))
    solution = module.solve(x)
    wanted = long_solution(cell, x)
    assert solution.stats.converged.all()
    assert relative_error(flat(solution.value), flat(wanted)) < 1e-9
    cotangent = torch.randn_like(flat(wanted))
    inputs = [*leaves(x), *operator.parameters()]
    found, reference = (torch.autograd.grad((flat(z) * cotangent).sum(), inputs) for z in (solution.value, wanted))
    for a, b in zip(found, reference, strict=True):
        assert relative_error(a, b) < 1e-7
    assert solution.backward_stats is not None
    assert solution.backward_stats.converged.all()


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize("splitting", [ForwardBackward(alpha=0.4), PeacemanRachford()], ids=str)
def test_every_solver_and_adjoint_takes_a_splitting(pair, splitting):
    solver, adjoint = pair
    operator, x = operators()["convolution"]
    x.requires_grad_()
    cell = MonotoneCell(operator, splitting=splitting)
    module = ImplicitModule(cell, solver=exact(solver, 1e-6), adjoint=adjoint, unconverged="ignore")
    solution = module.solve(x)
    assert solution.stats.converged.all()
    assert relative_error(solution.value, long_solution(cell, x)) < 1e-5
    gradients = torch.autograd.grad(solution.value.square().sum(), [x, *operator.parameters()])
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


@every_operator
@pytest.mark.parametrize("splitting", [None, *SPLITTINGS], ids=str)
@pytest.mark.parametrize("rtol", [1e-2, 1e-5])
def test_the_reported_residual_is_that_of_the_map_and_keeps_to_the_tolerance(name, splitting, rtol):
    operator, x = operators()[name]
    if isinstance(splitting, PeacemanRachford) and isinstance(operator, MonotoneTiers):
        pytest.skip("refused, see below")
    cell = MonotoneCell(operator, splitting=splitting)
    module = ImplicitModule(cell, solver=Anderson(rtol=rtol, max_steps=300, patience=300), adjoint=Implicit())
    with torch.no_grad():
        solution = module.solve(x)
        fz = flat(cell(solution.value, x))
    true = (fz - flat(solution.value)).norm(dim=1) / fz.norm(dim=1)
    torch.testing.assert_close(solution.stats.residual, true)
    assert (true <= rtol).all()
    assert solution.stats.converged.all()


class Blind(Iteration):
    """Comes to rest anywhere."""

    def __call__(self, s, x):
        return s


def test_what_an_iteration_settles_on_is_checked():
    x = torch.ones(3, 2)
    with pytest.warns(UnconvergedWarning, match="3 of 3 samples stopped improving"):
        found = fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(3, 2), x, iterate=Blind())
    torch.testing.assert_close(found.stats.residual, torch.ones(3))
    assert not found.stats.converged.any()


class Doubled(Iteration):
    """Iterates s = (z, 2 z) instead of z, in float64."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def prepare(self, x, w):
        self.calls.append("prepare")
        return x.double(), torch.linalg.inv(2 * torch.eye(len(w)).double() - w.double())

    def start(self, z0, x, v):
        self.calls.append("start")
        return z0.double(), 2 * z0.double()

    def __call__(self, s, x, v):
        self.calls.append("step")
        # z = z W + x, as z = (x + z) (2 I − W)⁻¹ + …: one step of an implicit scheme.
        z = (s[1] - s[0] + x) @ v
        return z, 2 * z

    def read(self, s, x, v):
        self.calls.append("read")
        return s[0].float()


def test_an_iteration_may_have_states_and_arguments_of_its_own():
    torch.manual_seed(0)
    w = (0.2 * torch.randn(4, 4)).requires_grad_()
    x = torch.randn(3, 4, requires_grad=True)
    iteration = Doubled()
    found = fixed_point(
        lambda z, x, w: z @ w + x,
        torch.zeros(3, 4),
        x,
        w,
        solver=Picard(rtol=1e-6, max_steps=200),
        adjoint=Implicit(solver=Anderson(rtol=1e-9)),
        iterate=iteration,
    )
    closed = x.double() @ torch.linalg.inv(torch.eye(4).double() - w.double())
    torch.testing.assert_close(found.value, closed.float(), rtol=1e-5, atol=1e-5)
    assert iteration.calls.count("prepare") == iteration.calls.count("start") == 1
    assert found.stats.num_evals == iteration.calls.count("step") - 1  # one more, with a graph
    cotangent = torch.randn(3, 4)
    gradients = [torch.autograd.grad((v * cotangent).sum(), (x, w)) for v in (found.value, closed)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_pass_gradcheck():
    operator, x = operators()["convolution"]
    cell = MonotoneCell(operator, splitting=PeacemanRachford())
    module = ImplicitModule(cell, solver=PRECISE, adjoint=Implicit(solver=PRECISE))
    assert torch.autograd.gradcheck(module, (x[:1, :, :3, :3].clone().requires_grad_(),))


def test_an_unrolled_splitting_is_differentiated_step_by_step():
    operator, x = operators()["matrix"]
    x.requires_grad_()
    splitting = PeacemanRachford(alpha=0.7)
    cell = MonotoneCell(operator, splitting=splitting)
    module = ImplicitModule(cell, solver=Picard(rtol=0, max_steps=4), adjoint=Unrolled())
    value = module(x)
    inverse = torch.linalg.inv(torch.eye(9).double() * 1.7 - 0.7 * operator.matrix)
    u = torch.zeros_like(x)
    for _ in range(3):
        v = 2 * torch.relu(u) - u
        u = 2 * (v + 0.7 * x) @ inverse.mT - v
    torch.testing.assert_close(value, torch.relu(u))
    wanted = [x, *operator.parameters()]
    gradients = [torch.autograd.grad(z.square().sum(), wanted) for z in (value, torch.relu(u))]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_splitting_converges_where_the_map_itself_does_not():
    operator, x = operators()["matrix"]
    with torch.no_grad():
        for p in operator.parameters():
            p.mul_(4)
    plain, split = (
        ImplicitModule(
            MonotoneCell(operator, splitting=splitting),
            solver=Picard(rtol=1e-6, max_steps=800, patience=800),
            adjoint=Implicit(solver=Picard(rtol=1e-6, max_steps=800, patience=800)),
            unconverged="ignore",
        )
        for splitting in (None, PeacemanRachford(alpha=0.2))
    )
    x.requires_grad_()
    solution = split.solve(x)
    assert solution.stats.converged.all()
    assert not plain.solve(x).stats.converged.any()
    solution.value.sum().backward()
    # The adjoint iterates the transposed splitting, which converges as the splitting does.
    assert solution.backward_stats is not None
    assert solution.backward_stats.converged.all()
    assert solution.backward_stats.num_evals < 2 * solution.stats.num_evals


@given(seed=st.integers(0, 2**20), alpha=st.floats(-2, 1.5), size=st.floats(-1, 1.5))
def test_peaceman_rachford_contracts_for_every_step_size(seed, alpha, size):
    generator = torch.Generator().manual_seed(seed)
    operator = MonotoneMatrix(6, margin=0.3).double()
    with torch.no_grad():
        next(operator.parameters()).copy_(10**size * torch.randn(2, 6, 6, generator=generator, dtype=torch.float64))
    x, u, v = (torch.randn(3, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    step = PeacemanRachford(alpha=10**alpha).iterate(operator, x)
    prepared = step.prepare(x)
    with torch.no_grad():
        before, after = (u - v).norm(dim=1), (step(u, *prepared) - step(v, *prepared)).norm(dim=1)
    assert (after <= before * (1 + 1e-9)).all()


@every_operator
def test_safe_forward_backward_steps_contract(name):
    operator, x = operators()[name]
    step = ForwardBackward().iterate(operator, x)
    u, v = (tuple(map(torch.randn_like, x)) if isinstance(x, tuple) else torch.randn_like(x) for _ in range(2))
    with torch.no_grad():
        before = (flat(u) - flat(v)).norm(dim=1)
        after = (flat(step(u, x)) - flat(step(v, x))).norm(dim=1)
    assert (after < before).all()


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5, math.nan])
def test_impossible_forward_backward_steps_are_named(alpha):
    with pytest.raises(ValueError, match=rf"ForwardBackward got alpha={alpha}.*\(0, 1\].*use None"):
        ForwardBackward(alpha=alpha)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_impossible_peaceman_rachford_steps_are_named(alpha):
    with pytest.raises(ValueError, match=rf"PeacemanRachford got alpha={alpha}.*positive and finite.*use alpha=0\.5"):
        PeacemanRachford(alpha=alpha)


def test_tiers_have_no_inverse():
    operator, x = operators()["tiers"]
    cell = MonotoneCell(operator, splitting=PeacemanRachford())
    module = ImplicitModule(cell, solver=Picard(), adjoint=Implicit())
    with pytest.raises(StructureError, match=r"PeacemanRachford met an operator of 2 tiers.*use ForwardBackward\(\)"):
        module(x)
