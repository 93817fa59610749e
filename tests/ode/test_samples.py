"""Every sample for itself: alone or in a batch, beside stiff ones, beside broken ones."""

import pytest
import torch

from deqzoo.errors import SolverError, UnconvergedWarning
from deqzoo.ode import Continuous, DormandPrince, Unrolled, odeint
from deqzoo.solution import Status

from .problems import ADJOINTS, decay, every_adjoint, every_integrator, make, uneven


def assert_same(part, whole, rows) -> None:
    torch.testing.assert_close(part.value, whole.value[rows], rtol=0, atol=0, equal_nan=True)
    for name in ("num_steps", "residual", "status"):
        torch.testing.assert_close(
            getattr(part.stats, name), getattr(whole.stats, name)[rows], rtol=0, atol=0, equal_nan=True
        )


@every_integrator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 7, 128, 4097])
def test_a_sample_alone_is_the_same_sample_in_a_batch(kind, size, dtype):
    batch, integrator = (24 if size < 4000 else 9), make(kind, num_steps=200)
    h0, rate = uneven(batch, size, dtype)
    whole = odeint(decay, h0, rate, integrator=integrator)
    assert len(set(whole.stats.num_steps.tolist())) > 5 or integrator.fixed_budget
    for rows in ([0], [batch - 1], [1, 2], list(range(1, 6)), torch.randperm(batch).tolist()):
        assert_same(odeint(decay, h0[rows], rate[rows], integrator=integrator), whole, rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_for_large_states_and_several_threads(threads):
    torch.set_num_threads(threads)
    h0, rate = uneven(3, 40000, torch.float32)
    integrator = DormandPrince(max_steps=5)
    whole = odeint(decay, h0, rate, integrator=integrator, unconverged="ignore")
    for rows in ([0], [2], [1, 2]):
        part = odeint(decay, h0[rows], rate[rows], integrator=integrator, unconverged="ignore")
        assert_same(part, whole, rows)


def test_the_stiffest_sample_does_not_slow_the_others():
    h0, rate = uneven(4, 8, torch.float64)
    rate[3] = 500
    stats = odeint(decay, h0, rate).stats
    alone = [odeint(decay, h0[i : i + 1], rate[i : i + 1]).stats.num_evals for i in range(4)]
    assert stats.num_steps.tolist() == alone
    assert stats.num_evals == max(alone)
    assert alone[3] > 5 * alone[0]


@every_adjoint
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 3.0], ids=["nan", "inf", "pole"])
def test_a_broken_sample_harms_nobody(adjoint, broken):
    """h' = w h² has a pole at t = 1 / (w h0)."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    h0 = torch.tensor([[0.5], [broken], [0.1]], dtype=torch.float64, requires_grad=True)
    how = {"integrator": DormandPrince(rtol=1e-6), "adjoint": adjoint}
    with pytest.warns(UnconvergedWarning, match=r"The integration did not converge.*1 of 3 samples met NaN or inf"):
        found = odeint(lambda h, t, w: w * h * h, h0, w, **how)
    assert found.stats.status.tolist() == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert found.value[1].isnan().all()
    assert found.stats.residual[1] == torch.inf
    good = torch.tensor([0, 2])
    few = odeint(lambda h, t, w: w * h * h, h0[good], w, **how)
    assert torch.equal(found.value[good], few.value)
    gradients = torch.autograd.grad(found.value[good].sum(), [h0, w])
    wanted = torch.autograd.grad(few.value.sum(), [h0, w])
    torch.testing.assert_close(gradients[0][good], wanted[0][good], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[1], wanted[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("power", [2, 3, 9])
def test_a_pole_is_found_and_not_jumped_over(dtype, power):
    h0 = torch.full((1, 2), 2.0, dtype=dtype)
    with pytest.warns(UnconvergedWarning, match="met NaN or inf"):
        found = odeint(lambda h, t: h**power, h0)
    assert found.value.isnan().all()


def test_nan_on_the_way_is_found():
    found = odeint(
        lambda h, t: torch.where(t[:, None] > 0.5, torch.nan, 1.0) * h, torch.ones(2, 3), unconverged="ignore"
    )
    assert found.stats.status.tolist() == [Status.NONFINITE] * 2
    assert found.value.isnan().all()


@every_adjoint
def test_out_of_steps_is_reported_and_what_was_reached_is_returned(adjoint):
    h0, rate = uneven(3, 8, torch.float64)
    rate[1] = 0.2
    h0.requires_grad_()
    if isinstance(adjoint, Continuous):
        adjoint = Continuous(integrator=DormandPrince(rtol=1e-6))
    how = {"integrator": DormandPrince(rtol=1e-6, max_steps=12), "adjoint": adjoint}
    with pytest.warns(UnconvergedWarning, match=r"1 of 3 samples ran out of steps \(raise `max_steps`"):
        found = odeint(decay, h0, rate, **how)
    assert found.stats.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.MAX_STEPS]
    assert found.stats.num_steps[2] == 2 + 6 * 12
    assert found.value.isfinite().all()
    assert found.stats.residual[2] == torch.inf
    # The steps that were taken are differentiated, by the continuous adjoint as well.
    (got,) = torch.autograd.grad(found.value.sum(), h0)
    wanted = odeint(decay, h0, rate, **(how | {"adjoint": Unrolled(), "unconverged": "ignore"})).value
    torch.testing.assert_close(got, torch.autograd.grad(wanted.sum(), h0)[0], rtol=2e-3, atol=1e-5)
    with pytest.raises(SolverError, match="The integration did not converge"):
        odeint(decay, h0, rate, unconverged="raise", **how)


def test_an_empty_batch():
    h0 = torch.zeros(0, 3, requires_grad=True)
    for adjoint in ADJOINTS:
        found = odeint(lambda h, t: -h, h0, adjoint=adjoint)
        assert found.value.shape == (0, 3)
        assert found.stats.num_evals == 0
