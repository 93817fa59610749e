"""What a solve costs: evaluations, and waits for the device."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Status
from deqzoo.solvers import GMRES, AffineMap, Anderson, Broyden, NewtonKrylov, Picard, Reversible

from .catalogue import every_linear_solver, every_solver, tuned
from .problems import linear


class Transfers(TorchDispatchMode):
    """Counts what makes the host wait for a device: scalars that are read, tensors brought over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        for name in ("cpu", "tolist"):
            monkeypatch.setattr(torch.Tensor, name, self._counting(getattr(torch.Tensor, name)))

    def _counting(self, method):
        def counted(tensor, *args, **kwargs):
            self.count += 1
            return method(tensor, *args, **kwargs)

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def count_evaluations(solver, **how) -> tuple[int, object]:
    problem = linear(factor=0.9)
    calls = 0

    def f(z, *args):
        nonlocal calls
        calls += 1
        return problem.f(z, *args)

    with torch.no_grad():
        found = fixed_point(f, problem.z0, *problem.args, solver=solver, **how)
    return calls, found.stats


@every_solver
def test_evaluations_are_counted_as_they_are_made(solver):
    calls, stats = count_evaluations(solver, unconverged="ignore")
    assert stats.num_evals == calls
    assert (stats.num_steps <= calls).all()
    assert (stats.num_steps >= 1).all()
    assert int(stats.num_steps.max()) == calls  # the solve ended with its last sample


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("budget", [1, 2, 7, 15])
def test_a_fixed_budget_is_spent_exactly(solver, budget):
    calls, stats = count_evaluations(tuned(solver, rtol=0, max_steps=budget))
    assert calls == stats.num_evals == budget
    assert (stats.status == Status.MAX_STEPS).all()


@every_linear_solver
@pytest.mark.parametrize("rtol", [0.0, 1e-9])
def test_statistics_tell_budgets_from_tolerances(solver, rtol):
    problem = linear()
    x, w = problem.args
    found = tuned(solver, rtol=rtol, max_steps=2).solve(AffineMap(lambda u: u @ w, x), problem.z0)
    assert found.stats.fixed_budget == (rtol == 0)
    words = "5 of 5 samples spent their budget" if rtol == 0 else "5 of 5 samples ran out of steps"
    assert str(found.stats).startswith(words)


def test_budgets_of_solvers_with_several_evaluations_per_step():
    assert count_evaluations(Reversible(rtol=0, max_steps=6))[0] == 13
    steps, products = 4, 5
    calls, _ = count_evaluations(NewtonKrylov(rtol=0, max_steps=steps, inner_steps=products))
    assert calls == steps + (steps - 1) * products
    problem = linear()
    x, w = problem.args
    assert GMRES(rtol=0, max_steps=5).solve(AffineMap(lambda u: u @ w, x), problem.z0, x).stats.num_evals == 5


@every_linear_solver
def test_a_fixed_budget_asks_the_device_nothing(solver):
    """Meta tensors have no data: whoever asks for some fails."""
    x = torch.empty(3, 8, device="meta")
    found = tuned(solver, rtol=0, max_steps=9).solve(AffineMap(lambda u: 0.5 * u, x), torch.empty_like(x), x)
    assert found.value.is_meta
    assert found.value.shape == (3, 8)
    assert found.stats.residual.is_meta


@every_solver
def test_a_fixed_budget_asks_the_device_nothing_through_the_front_door(solver):
    x = torch.empty(3, 8, device="meta")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fixed_point(lambda z, x: 0.5 * z + x, x, x, solver=tuned(solver, rtol=0, max_steps=9))
    assert found.value.is_meta


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("every", [1, 4])
def test_an_adaptive_solve_asks_once_per_look(solver, every, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)  # where host and device share their memory, nothing waits
    x = torch.randn(5, 8)
    solver = tuned(solver, check_every=every, rtol=1e-6)
    with torch.no_grad(), Transfers(monkeypatch) as transfers:
        found = fixed_point(
            lambda z, x: 0.6 * torch.sin(z) + x, torch.zeros(5, 8), x, solver=solver, unconverged="ignore"
        )
    looks = -(-found.stats.num_evals // every)
    assert found.stats.converged.all()
    assert looks <= transfers.count <= looks + 1


def test_gmres_asks_only_when_the_end_may_be_near(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    x, rates = torch.randn(5, 64), torch.linspace(-0.9, 0.95, 64)
    with Transfers(monkeypatch) as transfers:
        found = GMRES(rtol=1e-4).solve(AffineMap(lambda u: rates * u, x), torch.zeros_like(x), x)
    assert found.stats.converged.all()
    needed = int(found.stats.num_steps.max())
    assert needed <= found.stats.num_evals <= needed + 2
    assert transfers.count < 0.7 * needed


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("every", [2, 5, 7])
def test_looking_rarely_costs_at_most_the_evaluations_in_between(solver, every):
    always, stats = count_evaluations(tuned(solver, max_steps=100))
    calls, rare = count_evaluations(tuned(solver, max_steps=100, check_every=every))
    assert always <= calls < always + every
    assert calls % every == 0
    assert (rare.residual <= 1e-4).all()
    assert (rare.num_steps % every == 0).all()
    assert (rare.num_steps >= stats.num_steps).all()


@pytest.mark.parametrize("every", [3, 100])
def test_the_last_evaluation_is_always_looked_at(every):
    calls, stats = count_evaluations(Picard(max_steps=10, check_every=every), unconverged="ignore")
    assert calls == 10
    assert (stats.num_steps == 10).all()


@every_solver
def test_patience_ends_what_does_not_improve(solver):
    """z = 1 - z from 0 goes back and forth; z + 1 goes nowhere."""
    solver = tuned(solver, patience=3, max_steps=1000, rtol=1e-12)
    found = fixed_point(
        lambda z: z + torch.ones(4).double(), torch.zeros(2, 4).double(), solver=solver, unconverged="ignore"
    )
    alternating = fixed_point(
        lambda z: torch.where(z > 0.5, 0.0, 1.0).double(),
        torch.zeros(2, 4).double(),
        solver=Picard(patience=3),
        unconverged="ignore",
    )
    assert (alternating.stats.status == Status.STALLED).all()
    assert alternating.stats.num_evals <= 6
    assert (found.stats.status != Status.CONVERGED).all()


@every_solver
def test_a_tolerance_below_the_dtype_stalls_instead_of_running_on(solver):
    x = torch.randn(3, 40)
    w = 0.05 * torch.randn(40, 40)
    solver = tuned(solver, rtol=1e-12, patience=5, max_steps=400)
    found = fixed_point(lambda z, x: torch.sin(z @ w) + x, torch.zeros(3, 40), x, solver=solver, unconverged="ignore")
    assert found.stats.num_evals < 200
    assert ((found.stats.status == Status.STALLED) | (found.stats.residual < 1e-12)).all()
    assert (found.stats.residual < 1e-5).all()


@every_solver
def test_autocast_does_not_reach_the_arithmetic_of_solvers(solver):
    w = 0.1 * torch.randn(6, 6)
    x = torch.randn(4, 6)

    def f(z, x):
        with torch.autocast("cpu", enabled=False):
            return torch.tanh(z @ w) + x

    solver = tuned(solver, rtol=1e-5)
    with torch.no_grad():
        plain = fixed_point(f, torch.zeros(4, 6), x, solver=solver)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = fixed_point(f, torch.zeros(4, 6), x, solver=solver)
    assert torch.equal(under.value, plain.value)
    assert under.stats.num_evals == plain.stats.num_evals


@every_solver
def test_a_float32_state_under_autocast_is_finer_than_a_half_state(solver):
    w = 0.02 * torch.randn(64, 64)
    x = torch.randn(4, 64)
    solver = tuned(solver, rtol=1e-3)
    f = lambda z, x: torch.tanh(z @ w.to(z.dtype)) + x  # noqa: E731
    with torch.no_grad():
        wanted = fixed_point(f, torch.zeros(4, 64), x, solver=tuned(solver, rtol=1e-6, max_steps=99)).value
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = fixed_point(f, torch.zeros(4, 64), x, solver=solver)
        half = fixed_point(f, torch.zeros(4, 64).bfloat16(), x.bfloat16(), solver=solver, unconverged="ignore")
    assert mixed.value.dtype == torch.float32
    assert mixed.stats.converged.all()
    error, coarse = ((v.float() - wanted).norm() for v in (mixed.value, half.value))
    assert error < 0.8 * coarse
