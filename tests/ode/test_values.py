"""Truth: closed forms, orders of convergence, matrix exponentials and torchdiffeq."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchdiffeq import odeint as reference

from deqzoo.ode import RK4, DormandPrince, Euler, odeint
from deqzoo.ode.base import as_span
from deqzoo.ode.tableau import CLASSIC, DORMAND_PRINCE, DORMAND_PRINCE_ERROR, EULER, take_step
from deqzoo.solution import Status

from .problems import Case, convolution, every_integrator, make, random


def logistic(h, t):
    return h * (1 - h) * (1 + t.sin())[:, None]


def logistic_solution(h0, t):
    grown = h0 * math.exp(t + 1 - math.cos(t))
    return grown / (1 - h0 + grown)


H0 = torch.tensor([[0.1, 0.5], [0.02, 0.9]], dtype=torch.float64)


@pytest.mark.parametrize(("tableau", "order"), [(EULER, 1), (CLASSIC, 4), (DORMAND_PRINCE, 5)], ids=["1", "4", "5"])
def test_methods_converge_with_their_order(tableau, order):
    assert tableau.order == order
    errors = []
    for num_steps in (8, 16):
        h, dt = H0, torch.full((2, 1), 2 / num_steps, dtype=torch.float64)
        for k in range(num_steps):
            times = torch.stack([(k + c) * dt[:, 0] for c in tableau.c])
            h = take_step(tableau, logistic, h, times, dt).end
        errors.append(float((h - logistic_solution(H0, 2.0)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_the_embedded_method_has_order_four():
    """Its error estimate shrinks by two to the fifth when steps are halved."""
    found = []
    for length in (0.05, 0.025):
        dt = torch.full((2, 1), length, dtype=torch.float64)
        times = torch.stack([c * dt[:, 0] for c in DORMAND_PRINCE.c])
        stages = take_step(DORMAND_PRINCE, logistic, H0, times, dt)
        slopes = [*stages.slopes, logistic(stages.end, dt[:, 0])]
        found.append(sum(w * k for w, k in zip(DORMAND_PRINCE_ERROR, slopes, strict=True)).abs().max() * length)
    assert math.log2(found[0] / found[1]) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("tableau", [EULER, CLASSIC, DORMAND_PRINCE], ids=["1", "4", "5"])
def test_tableaus_are_consistent(tableau):
    assert sum(tableau.b) == pytest.approx(1)
    assert [sum(row) for row in tableau.a] == pytest.approx(list(tableau.c))
    assert sum(DORMAND_PRINCE_ERROR) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("integrator", [Euler(4000), RK4(100), DormandPrince(rtol=1e-9)], ids=str)
@pytest.mark.parametrize("t1", [2.0, -1.0, 0.1])
def test_closed_form(integrator, t1):
    found = odeint(logistic, H0, t1=t1, integrator=integrator).value
    torch.testing.assert_close(
        found, logistic_solution(H0, t1), rtol=0, atol=5e-4 if integrator == Euler(4000) else 1e-8
    )


@given(
    size=st.integers(1, 6),
    scale=st.floats(-2, 0.7),
    t1=st.floats(-1.5, 1.5).filter(lambda t: abs(t) > 1e-3),
    seed=st.integers(0, 2**20),
    rtol=st.sampled_from([1e-5, 1e-8]),
)
def test_linear_systems_follow_the_matrix_exponential(size, scale, t1, seed, rtol):
    a = 10**scale * random(size, size, seed=seed)
    h0 = random(3, size, seed=seed + 1)
    found = odeint(lambda h, t, a: h @ a.mT, h0, a, t1=t1, integrator=DormandPrince(rtol=rtol))
    wanted = h0 @ torch.linalg.matrix_exp(t1 * a).mT
    assert found.stats.converged.all()
    # Local errors are carried on by the flow.
    amplification = float(torch.linalg.matrix_norm(a, 2)) * abs(t1)
    bound = 50 * rtol * math.exp(amplification) * h0.norm(dim=1) * (1 + amplification)
    assert ((found.value - wanted).norm(dim=1) <= bound * math.exp(amplification)).all()
    assert (found.stats.residual <= rtol).all()


def test_agreement_with_torchdiffeq():
    case = Case()
    found = case.solve(t1=1.5, integrator=DormandPrince(rtol=1e-11)).value
    times = torch.tensor([0.0, 1.5], dtype=torch.float64)

    def f(t, h):
        return case.f(h, t.expand(len(h)), (case.y, 0.5), case.b)

    wanted = reference(f, case.h0, times, rtol=1e-11, atol=1e-12)[-1]
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)
    got = torch.autograd.grad((found * case.cotangent).sum(), case.leaves)
    true = torch.autograd.grad((wanted * case.cotangent).sum(), case.leaves)
    for a, b in zip(got, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_agreement_with_torchdiffeq_step_by_step():
    """The same fixed steps give the same numbers."""
    x, kernel = random(2, 4, 5, 5), random(4, 4, 3, 3, seed=2)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    wanted = reference(lambda t, h: convolution(h, t.expand(2), kernel), x, times, method="euler")[-1]
    found = odeint(convolution, x, kernel, integrator=Euler(5)).value
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_tighter_tolerances_cost_more_and_err_less():
    cost, errors = [], []
    for rtol in (1e-2, 1e-4, 1e-6, 1e-8):
        found = odeint(logistic, H0, t1=2.0, integrator=DormandPrince(rtol=rtol))
        cost.append(found.stats.num_evals)
        errors.append(float((found.value - logistic_solution(H0, 2.0)).abs().max()))
        assert (found.stats.residual <= rtol).all()
        assert errors[-1] <= 20 * rtol
    assert cost == sorted(set(cost))
    assert errors == sorted(errors, reverse=True)


def test_the_steps_do_not_depend_on_the_units_of_the_state():
    def cubic(h, t, unit):
        return -20 * h * (h / unit) ** 2

    h0 = random(3, 4)
    found = [odeint(cubic, h0 * unit, unit) for unit in (1.0, 1e-150, 1e150)]
    for other in found[1:]:
        assert torch.equal(found[0].stats.num_steps, other.stats.num_steps)


@every_integrator
def test_back_and_forth(kind):
    integrator = make(kind, num_steps=2000, rtol=1e-10)
    there = odeint(logistic, H0, t1=2.0, integrator=integrator).value
    back = odeint(logistic, there, t0=2.0, t1=0.0, integrator=integrator).value
    torch.testing.assert_close(back, H0, rtol=0, atol=4e-3 if kind is Euler else 1e-7)


@every_integrator
def test_an_empty_interval_evaluates_nothing(kind):
    def never(h, t):
        raise AssertionError

    with torch.no_grad():
        found = odeint(never, H0, t0=0.3, t1=0.3, integrator=make(kind))
    assert torch.equal(found.value, H0)
    assert found.stats.num_evals == 0
    assert found.stats.num_steps.tolist() == [0, 0]
    assert found.stats.residual.tolist() == [0, 0]
    assert found.stats.converged.all()


@every_integrator
def test_samples_have_times_of_their_own(kind):
    t0, t1 = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([2.0, 0.5, -1.0])
    h0 = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
    integrator = make(kind, num_steps=7)
    together = odeint(logistic, h0, t0=t0, t1=t1, integrator=integrator)
    for i in range(3):
        alone = odeint(logistic, h0[i : i + 1], t0=float(t0[i]), t1=float(t1[i]), integrator=integrator)
        assert torch.equal(alone.value[0], together.value[i])
        assert torch.equal(alone.stats.num_steps[0], together.stats.num_steps[i])
    assert together.stats.converged[1]
    assert torch.equal(together.value[1], h0[1])


def test_the_last_step_ends_at_the_end():
    seen = []

    def f(h, t):
        seen.append(float(t[0]))
        return -h * (1 + 30 * (t[:, None] - 0.4) ** 2)

    with torch.no_grad():
        odeint(f, torch.ones(1, 1, dtype=torch.float64), t0=0.0, t1=0.7, integrator=DormandPrince(rtol=1e-7))
    assert seen[-1] == pytest.approx(0.7, abs=1e-15)
    assert max(seen) <= 0.7 + 1e-15


def test_a_constant_field_takes_few_steps():
    found = odeint(lambda h, t: torch.ones_like(h), torch.zeros(1, 3, dtype=torch.float64), t1=10.0)
    torch.testing.assert_close(found.value, torch.full_like(found.value, 10.0))
    assert found.stats.num_evals <= 2 + 6 * 4


def test_a_field_of_zero_takes_one_step():
    found = odeint(lambda h, t: 0 * h, torch.zeros(2, 3), t1=10.0)
    assert found.stats.num_evals == 8
    assert found.stats.residual.tolist() == [0, 0]
    assert found.stats.converged.all()


def test_the_residual_is_that_of_the_worst_step():
    def settled(h, t):
        return torch.where(t[:, None] < 0.5, logistic(h, t), 0.0)

    found = odeint(settled, H0, t1=50.0, integrator=DormandPrince(rtol=1e-5))
    assert ((found.stats.residual > 1e-8) & (found.stats.residual <= 1e-5)).all()


def test_reached_ends_are_reported_as_such():
    with torch.no_grad():
        fixed = odeint(logistic, H0, integrator=RK4(3))
    assert fixed.stats.status.tolist() == [Status.MAX_STEPS] * 2
    assert fixed.stats.residual.isnan().all()
    assert fixed.stats.num_evals == 12
    assert fixed.stats.num_steps.tolist() == [12, 12]
    assert fixed.stats.fixed_budget and "2 of 2 samples spent their budget" in str(fixed.stats)
    assert RK4(3).fixed_budget and RK4(3).rtol == 0 and RK4(3).max_steps == 3


def test_spans_are_kept_in_double_precision():
    span = as_span(0.1, torch.tensor(0.7, dtype=torch.float64), 2)
    assert span.start.tolist() == [0.1, 0.1] and span.end.tolist() == [0.7, 0.7]
