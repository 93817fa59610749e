"""A sample's result does not depend on its batch: not on the number, the order or the fate of the others."""

import pytest
import torch

from deqzoo import adjoints
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Solution, Status
from deqzoo.solvers import AffineMap, NewtonKrylov, Picard, Reversible

from .catalogue import LINEAR, every_solver, tuned
from .problems import uneven


def assert_same(part: Solution, whole: Solution, rows, *, solver) -> None:
    assert torch.equal(part.value, whole.value[rows])
    assert torch.equal(part.stats.residual, whole.stats.residual[rows])
    assert torch.equal(part.stats.status, whole.stats.status[rows])
    if not isinstance(solver, NewtonKrylov):  # its evaluations include those that others needed in the inner solves
        assert torch.equal(part.stats.num_steps, whole.stats.num_steps[rows])


def assert_batch_invariant(solver, batch: int, size: int, dtype: torch.dtype) -> None:
    f, z0, (x, rate) = uneven(batch, size, dtype)
    with torch.no_grad():
        whole = fixed_point(f, z0, x, rate, solver=solver, unconverged="ignore")
        for rows in ([0], [batch - 1], [1, 2], list(range(1, min(batch, 6))), torch.randperm(batch).tolist()):
            part = fixed_point(f, z0[rows], x[rows], rate[rows], solver=solver, unconverged="ignore")
            assert_same(part, whole, rows, solver=solver)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 7, 128, 4097])
def test_a_sample_alone_is_the_same_sample_in_a_batch(solver, size, dtype):
    assert_batch_invariant(tuned(solver, max_steps=30), 64 if size < 4000 else 16, size, dtype)


@every_solver
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_for_large_states_and_several_threads(solver, threads):
    """Sums of so many numbers are split over threads where nothing prevents it."""
    torch.set_num_threads(threads)
    assert_batch_invariant(tuned(solver, max_steps=3), 3, 40000, torch.float32)


@every_solver
def test_the_same_for_a_fixed_budget(solver):
    f, z0, (x, rate) = uneven(64, 128, torch.float32)
    solver = tuned(solver, rtol=0, max_steps=9)
    whole = fixed_point(f, z0, x, rate, solver=solver)
    for rows in ([5], [7, 8], torch.randperm(64).tolist()):
        assert_same(fixed_point(f, z0[rows], x[rows], rate[rows], solver=solver), whole, rows, solver=solver)


@pytest.mark.parametrize("solver", LINEAR, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("size", [1, 7, 128, 4097])
def test_the_same_for_linear_solvers(solver, size):
    _, z0, (x, rate) = uneven(64, size, torch.float32)
    tilt = torch.linspace(-1, 1, size)

    def solve(rows):
        return solver.solve(AffineMap(lambda u: rate[rows] * tilt * u, x[rows]), z0[rows])

    whole = solve(list(range(64)))
    for rows in ([0], [63], [3, 4], torch.randperm(64).tolist()):
        assert_same(solve(rows), whole, rows, solver=solver)


@every_solver
@pytest.mark.parametrize("rtol", [1e-4, 0.0], ids=["adaptive", "fixed budget"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_one_broken_sample_harms_nobody(solver, rtol, bad):
    f, z0, (x, rate) = uneven(8, 30, torch.float32)
    solver = tuned(solver, rtol=rtol, max_steps=20)
    sound = fixed_point(f, z0, x, rate, solver=solver, unconverged="ignore")
    poisoned = x.clone()
    poisoned[2, 4] = bad
    found = fixed_point(f, z0, poisoned, rate, solver=solver, unconverged="ignore")
    others = [0, 1, 3, 4, 5, 6, 7]
    assert torch.equal(found.value[others], sound.value[others])
    assert torch.equal(found.stats.residual[others], sound.stats.residual[others])
    assert torch.equal(found.stats.status[others], sound.stats.status[others])
    if abs(bad) != 3e38:
        assert found.stats.status[2] == Status.NONFINITE
        assert found.value[2].isnan().all()


@every_solver
def test_the_first_sample_may_be_the_broken_one(solver):
    f, z0, (x, rate) = uneven(3, 5, torch.float64)
    x[0] = torch.nan
    found = fixed_point(f, z0, x, rate, solver=tuned(solver, max_steps=100), unconverged="ignore")
    assert found.stats.status.tolist() == [Status.NONFINITE, Status.CONVERGED, Status.CONVERGED]
    assert found.value[0].isnan().all()
    assert found.value[1:].isfinite().all()
    assert found.stats.residual[0] == torch.inf
    assert found.stats.num_steps[0] == 0


@every_solver
def test_a_singular_sample_harms_nobody(solver):
    """z = z + 1 has no solution, and its I − J is zero."""
    rate = torch.tensor([[0.5], [1.0], [0.3]], dtype=torch.float64)
    x = torch.ones(3, 4).double()

    def f(z, x, rate):
        return rate * z + x

    solver = tuned(solver, max_steps=80)
    found = fixed_point(f, torch.zeros_like(x), x, rate, solver=solver, unconverged="ignore")
    alone = fixed_point(f, torch.zeros(2, 4).double(), x[[0, 2]], rate[[0, 2]], solver=solver)
    assert_same(alone, found, [0, 2], solver=solver)
    assert found.stats.status[1] != Status.CONVERGED


@every_solver
def test_a_solve_ends_when_nothing_is_left_to_do(solver):
    found = fixed_point(
        lambda z, x: 0.5 * z + x,
        torch.zeros(3, 4),
        torch.full((3, 4), torch.nan),
        solver=solver,
        unconverged="ignore",
    )
    assert found.stats.num_evals == 1
    assert (found.stats.status == Status.NONFINITE).all()
    assert found.value.isnan().all()


@every_solver
def test_an_empty_batch_has_an_empty_solution(solver):
    for s in (solver, tuned(solver, rtol=0)):
        found = fixed_point(lambda z: (torch.cos(z[0]), z[1]), (torch.zeros(0, 3), torch.zeros(0, 2, 2)), solver=s)
        assert [tuple(leaf.shape) for leaf in found.value] == [(0, 3), (0, 2, 2)]
        assert found.stats.residual.shape == found.stats.status.shape == found.stats.num_steps.shape == (0,)


@every_solver
def test_samples_without_components_are_solved(solver):
    found = fixed_point(lambda z: z, torch.zeros(3, 0), solver=solver)
    assert found.value.shape == (3, 0)
    assert found.stats.converged.all()


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        (Reversible(rtol=0, max_steps=16), adjoints.Reversible()),
        (Picard(rtol=0, max_steps=16), adjoints.Implicit()),
        (Picard(rtol=0, max_steps=16), adjoints.OneStep()),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_sample_that_diverges_does_not_reach_the_gradients_of_weights(solver, adjoint):
    """Its value is that of its best iterate, and finite; what came after is in nobody's gradient."""
    w = torch.linspace(-0.6, 0.6, 16).view(4, 4).requires_grad_()
    x = 0.1 * torch.randn(8, 4)
    x[3] = 40.0
    found = fixed_point(
        lambda z, x, w: (z @ w) ** 3 + x, torch.zeros(8, 4), x, w, solver=solver, adjoint=adjoint, unconverged="ignore"
    )
    assert found.value.isfinite().all()
    kept = torch.arange(8) != 3
    (gradient,) = torch.autograd.grad(found.value[kept].square().mean(), w)
    assert gradient.isfinite().all()
