"""Gradients of every adjoint with every integrator: finite differences, backpropagation, and what they keep."""

import copy
import math
import pickle

import pytest
import torch

from deqzoo import ode
from deqzoo.errors import AdjointError
from deqzoo.nn import weight_normed
from deqzoo.ode import RK4, Checkpointed, Continuous, DormandPrince, Unrolled, odeint
from deqzoo.ode.base import as_span
from deqzoo.ode.trajectory import Trajectory

from .problems import ADJOINTS, INTEGRATORS, Case, decay, every_adjoint, every_integrator, make, random, uneven

EXACT = [a for a in ADJOINTS if not isinstance(a, Continuous)]


def finite_difference(case: Case, leaf: torch.Tensor, **how) -> torch.Tensor:
    found, eps = torch.zeros_like(leaf), 1e-6
    with torch.no_grad():
        for i in range(leaf.numel()):
            old = float(leaf.view(-1)[i])
            ends = []
            for shift in (eps, -eps):
                leaf.view(-1)[i] = old + shift
                ends.append(float(case.loss(**how)))
            leaf.view(-1)[i] = old
            found.view(-1)[i] = (ends[0] - ends[1]) / (2 * eps)
    return found


@every_adjoint
@every_integrator
def test_gradients_are_those_of_finite_differences(kind, adjoint):
    case = Case(batch=2, size=3)
    # The continuous adjoint differentiates the ODE, and needs steps that follow it.
    fine = isinstance(adjoint, Continuous) and kind is not DormandPrince
    how = {"integrator": make(kind, num_steps=500 if fine and kind is ode.Euler else 40, rtol=1e-10)}
    got = case.gradients(adjoint=adjoint, **how)
    rtol = 1e-2 if fine and kind is ode.Euler else 1e-5
    for leaf, found in zip(case.leaves, got, strict=True):
        torch.testing.assert_close(found, finite_difference(case, leaf, **how), rtol=rtol, atol=1e-6)


@every_integrator
def test_checkpoints_give_the_gradient_of_backpropagation(kind):
    """Of few and loose steps, too: they are the same steps."""
    case = Case()
    integrator = make(kind, num_steps=3, rtol=1e-2)
    a, b = (case.gradients(integrator=integrator, adjoint=adjoint) for adjoint in (Checkpointed(), Unrolled()))
    for found, wanted in zip(a, b, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_the_continuous_adjoint_is_as_exact_as_its_tolerance(rtol):
    case = Case()
    exact = case.gradients(integrator=DormandPrince(rtol=1e-12))
    found = case.gradients(
        integrator=DormandPrince(rtol=1e-12), adjoint=Continuous(integrator=DormandPrince(rtol=rtol))
    )
    for a, b in zip(found, exact, strict=True):
        assert float((a - b).norm() / b.norm()) < 20 * rtol


@every_adjoint
def test_values_and_statistics_are_the_same_with_and_without_gradients(adjoint):
    case = Case()
    for kind in INTEGRATORS:
        integrator = make(kind)
        found = case.solve(integrator=integrator, adjoint=adjoint)
        with torch.no_grad():
            wanted = case.solve(integrator=integrator, adjoint=adjoint)
        torch.testing.assert_close(found.value, wanted.value, rtol=1e-14, atol=0)
        assert found.stats.num_evals == wanted.stats.num_evals
        assert torch.equal(found.stats.num_steps, wanted.stats.num_steps)
        assert not wanted.value.requires_grad and found.value.requires_grad
        assert not found.stats.residual.requires_grad


@every_adjoint
def test_gradients_do_not_depend_on_the_batch(adjoint):
    case = Case(batch=6)
    how = {"integrator": DormandPrince(rtol=1e-5), "adjoint": adjoint}
    together = case.gradients(**how)
    parts = []
    for i in range(6):
        one = Case(batch=6)
        found = odeint(one.f, one.h0[i : i + 1], (one.y[i : i + 1], 0.5), one.b, **how)
        parts.append(torch.autograd.grad((found.value * one.cotangent[i : i + 1]).sum(), one.leaves))
    for sums, pieces in zip(together, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(pieces), sums, rtol=1e-11, atol=1e-12)


@every_adjoint
def test_resting_samples_pass_their_gradients_on(adjoint):
    h0 = random(3, 2).requires_grad_()
    t1 = torch.tensor([0.0, 1.0, 0.0])
    value = odeint(lambda h, t: -h, h0, t1=t1, adjoint=adjoint, integrator=DormandPrince(rtol=1e-9)).value
    (found,) = torch.autograd.grad(value.sum(), h0)
    wanted = torch.exp(-t1.double())[:, None].expand(3, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0)


@every_adjoint
def test_parametrised_weights_learn(adjoint):
    linear = weight_normed(torch.nn.Linear(4, 4).double())
    value = odeint(lambda h, t: torch.tanh(linear(h)), random(3, 4), adjoint=adjoint).value
    value.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in linear.parameters())


@every_adjoint
def test_only_what_requires_gradients_gets_them(adjoint):
    h0, w = random(3, 4), random(4, 4).requires_grad_()
    (found,) = torch.autograd.grad(odeint(lambda h, t, w: h @ w, h0, w, adjoint=adjoint).value.sum(), w)
    assert found.abs().sum() > 0
    assert not odeint(lambda h, t: -h, h0, adjoint=adjoint).value.requires_grad
    unused = torch.ones(2, requires_grad=True)
    h0.requires_grad_()
    value = odeint(lambda h, t, u: torch.ones_like(h), h0, unused, adjoint=adjoint).value
    got = torch.autograd.grad(value.sum(), [h0, unused], allow_unused=True)
    torch.testing.assert_close(got[0], torch.ones_like(h0))
    assert got[1] is None or not got[1].any()


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_small_and_large_gradients_in_single_precision(scale):
    h0 = random(3, 4).float().requires_grad_()
    value = odeint(lambda h, t: -h, h0, adjoint=Continuous(), integrator=DormandPrince(rtol=1e-5)).value
    (found,) = torch.autograd.grad(value, h0, torch.full_like(value, scale))
    torch.testing.assert_close(found / scale, torch.full_like(h0, 0.36788), rtol=1e-3, atol=0)


def test_states_and_gradients_of_unlike_size_are_each_kept_to_the_tolerance():
    """h rests at a large value while its gradient decays: the former must not hide what is wrong with the latter."""
    h0 = torch.tensor([[1e8, 0.0]], dtype=torch.float64, requires_grad=True)
    value = odeint(lambda h, t: h * torch.tensor([0.0, -8.0]).double(), h0, adjoint=Continuous()).value
    (found,) = torch.autograd.grad(value[0, 1], h0)
    torch.testing.assert_close(found, torch.tensor([[0.0, math.exp(-8)]]).double(), rtol=1e-3, atol=0)


def test_a_gradient_of_nan_stays_in_its_sample():
    case = Case()
    value = case.solve(adjoint=Continuous(), unconverged="ignore").value
    v = case.cotangent.detach().clone()
    v[1] = 0
    wanted = torch.autograd.grad(value, case.leaves, v, retain_graph=True)
    v[1] = torch.nan
    found = torch.autograd.grad(value, case.leaves, v)
    assert found[0][1].isnan().all()
    torch.testing.assert_close(found[3], wanted[3])


def test_the_batch_takes_again_no_more_steps_than_its_busiest_sample_took():
    h0, rate = uneven(8, 4, torch.float64)

    def num_steps(rows) -> int:
        trajectory = Trajectory(keep_states=True)
        with torch.no_grad():
            start = h0[rows]
            span = as_span(0.0, 1.0, len(start))
            DormandPrince().solve(lambda h, t: decay(h, t, rate[rows]), start, span, visit=trajectory.visit)
        assert len(trajectory.steps()) == len(trajectory.states())
        return len(trajectory.steps())

    assert num_steps(list(range(8))) == max(num_steps([i]) for i in range(8))


def saved_bytes(adjoint, integrator) -> int:
    """Bytes that the forward pass leaves for the backward pass, each storage once."""
    storages = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storages[t.untyped_storage().data_ptr()] = t
        return t

    w = random(16, 16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value = odeint(
            lambda h, t, w: torch.tanh(h @ w).sin(), random(64, 16), w, adjoint=adjoint, integrator=integrator
        ).value
    assert value.requires_grad
    return sum(t.untyped_storage().nbytes() for t in storages.values())


def test_memory():
    state = 64 * 16 * 8
    kept = {type(a).__name__: [saved_bytes(a, RK4(n)) for n in (2, 20)] for a in ADJOINTS}
    assert kept["Continuous"][0] == kept["Continuous"][1] < 4 * state
    assert kept["Checkpointed"][1] - kept["Checkpointed"][0] == 18 * state
    assert kept["Unrolled"][1] - kept["Unrolled"][0] > 4 * 18 * state
    adaptive = [saved_bytes(Continuous(), DormandPrince(rtol=rtol)) for rtol in (1e-2, 1e-10)]
    assert adaptive[0] == adaptive[1]


def peak_of_backward(adjoint, integrator) -> int:
    w = random(16, 16).requires_grad_()
    value = odeint(
        lambda h, t, w: torch.tanh(h @ w).sin(), random(512, 16), w, adjoint=adjoint, integrator=integrator
    ).value
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        value.sum().backward()
    level = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")  # torch 2.11's, of any profile
def test_memory_of_the_backward_pass():
    few, many = (peak_of_backward(Continuous(), RK4(n)) for n in (2, 30))
    assert many < 1.5 * few
    few, many = (peak_of_backward(Checkpointed(), RK4(n)) for n in (2, 30))
    assert many < 1.5 * few


@pytest.mark.parametrize("kind", INTEGRATORS, ids=lambda c: c.__name__)
def test_second_derivatives(kind):
    h0 = random(2, 3).requires_grad_()
    integrator = make(kind, num_steps=6)
    assert torch.autograd.gradgradcheck(
        lambda h: odeint(lambda h, t: torch.sin(h) * h, h, adjoint=Unrolled(), integrator=integrator).value,
        (h0,),
        # Differences see how the steps of an adaptive integrator change, too; derivatives do not.
        atol=1e-5 if integrator.fixed_budget else 1e-3,
    )
    for adjoint in (Checkpointed(), Continuous()):
        value = odeint(lambda h, t: torch.sin(h) * h, h0, adjoint=adjoint, integrator=integrator).value
        with pytest.raises(AdjointError, match=r"second derivative was asked for.*Unrolled"):
            torch.autograd.grad(value.sum(), h0, create_graph=True)


@pytest.mark.parametrize("adjoint", [Checkpointed(), Continuous()], ids=["Checkpointed", "Continuous"])
def test_tensors_computed_outside_are_refused(adjoint):
    w = random(4, 4).requires_grad_()
    outside = 2 * w
    with pytest.raises(AdjointError, match=r"computed outside of it \(by MulBackward0\).*odeint.*in \*args"):
        odeint(lambda h, t: h @ outside, random(3, 4), adjoint=adjoint)


@every_adjoint
def test_the_backward_integration_is_reported(adjoint):
    case = Case()
    found = case.solve(adjoint=adjoint)
    assert found.backward_stats is None
    found.value.sum().backward()
    if isinstance(adjoint, Continuous):
        assert found.backward_stats.converged.all()
        assert found.backward_stats.num_evals >= 8
    else:
        assert found.backward_stats is None


@every_adjoint
def test_autocast_reaches_the_field_and_nothing_else(adjoint):
    linear = torch.nn.Linear(8, 8)
    dtypes = set()

    def f(h, t):
        out = torch.tanh(linear(h))
        dtypes.add((h.dtype, out.dtype))
        return out

    h0 = random(3, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = odeint(f, h0, adjoint=adjoint, integrator=DormandPrince(rtol=1e-2)).value
    assert value.dtype == torch.float32
    value.sum().backward()
    assert dtypes == {(torch.float32, torch.bfloat16)}
    half = linear.weight.grad.clone()
    linear.weight.grad = None
    odeint(f, h0, adjoint=adjoint, integrator=DormandPrince(rtol=1e-2)).value.sum().backward()
    torch.testing.assert_close(half, linear.weight.grad, rtol=0.1, atol=0.05)


@every_adjoint
def test_nested_states(adjoint):
    """A state of tuples does what its matrix does."""
    a, b = random(3, 2, 2).requires_grad_(), random(3, 5, seed=1).requires_grad_()

    def f(state, t, w):
        a, (b,) = state
        return w * b[:, :4].reshape(-1, 2, 2).sin() * t[:, None, None], (-b * a.sum((1, 2))[:, None].tanh(),)

    def flat(h, t, w):
        da, (db,) = f((h[:, :4].reshape(-1, 2, 2), (h[:, 4:],)), t, w)
        return torch.cat([da.flatten(1), db], 1)

    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    how = {"adjoint": adjoint, "integrator": DormandPrince(rtol=1e-7)}
    found_a, (found_b,) = odeint(f, (a, (b,)), w, **how).value
    wanted = odeint(flat, torch.cat([a.flatten(1), b], 1), w, **how).value
    found = torch.cat([found_a.flatten(1), found_b], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    for got, true in zip(
        torch.autograd.grad(found.square().sum(), [a, b, w]),
        torch.autograd.grad(wanted.square().sum(), [a, b, w]),
        strict=True,
    ):
        torch.testing.assert_close(got, true, rtol=1e-11, atol=1e-12)


@every_adjoint
def test_the_value_may_be_changed_in_place(adjoint):
    case = Case()
    before = case.gradients(adjoint=adjoint)
    value = case.solve(adjoint=adjoint).value
    after = torch.autograd.grad((value.mul_(2) * case.cotangent).sum() / 2, case.leaves)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [*ADJOINTS, *(make(k) for k in INTEGRATORS)], ids=str)
def test_adjoints_and_integrators_are_values(value):
    assert value == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
    assert hash(value) == hash(copy.copy(value))
    with pytest.raises(AttributeError):
        value.num_steps = 3
    with pytest.raises(TypeError):
        type(value)(tol=1e-3)
