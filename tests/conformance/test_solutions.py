"""Solvers find the solution, report its true residual, and return the best they met."""

import pytest
import torch

from deqzoo.errors import SolverError
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Status
from deqzoo.solvers import GMRES, AffineMap, Anderson, Broyden, Picard, Reversible

from .catalogue import LINEAR, SOLVERS, both_halves, every_linear_solver, every_solver, exact, tuned
from .problems import PROBLEMS, flat, linear, relative_error

every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


@every_solver
def test_a_linear_contraction_is_solved_to_its_closed_form(solver):
    problem = linear(batch=6, size=20)
    x, w = problem.args
    wanted = torch.linalg.solve(torch.eye(20).double() - w, x, left=False)
    found = fixed_point(problem.f, problem.z0, *problem.args, solver=exact(solver))
    assert found.stats.converged.all()
    assert relative_error(found.value, wanted) < 1e-9


@every_linear_solver
@pytest.mark.parametrize("known", [False, True], ids=["", "first evaluation known"])
def test_affine_maps_are_solved_from_anywhere(solver, known):
    problem = linear(batch=6, size=20)
    x, w = problem.args
    f = AffineMap(lambda u: u @ w, x)
    start = torch.randn(6, 20).double()
    found = exact(solver).solve(f, start, f(start) if known else None)
    assert relative_error(found.value, torch.linalg.solve(torch.eye(20).double() - w, x, left=False)) < 1e-9
    true = (f(found.value) - found.value).norm(dim=1) / f(found.value).norm(dim=1)
    torch.testing.assert_close(found.stats.residual, true, rtol=0.1, atol=1e-14)


@every_solver
def test_knowing_the_first_evaluation_saves_just_that(solver):
    problem = linear()
    f, start = (lambda z: problem.f(z, *problem.args)), torch.ones_like(problem.z0)
    plain, known = solver.solve(f, start), solver.solve(f, start, f(start))
    assert torch.equal(plain.value, known.value)
    assert known.stats.num_evals == plain.stats.num_evals - 1
    assert torch.equal(known.stats.num_steps, plain.stats.num_steps - 1)


@every_solver
@every_problem
def test_the_reported_residual_is_the_true_one(solver, problem):
    solver = tuned(solver, rtol=1e-6, max_steps=200)
    found = fixed_point(problem.f, problem.z0, *problem.args, solver=solver)
    assert found.stats.converged.all()
    assert (found.stats.residual <= 1e-6).all()
    torch.testing.assert_close(found.stats.residual, problem.residual(found.value), rtol=1e-4, atol=1e-14)
    assert relative_error(flat(found.value), problem.reference()) < 1e-5


@every_solver
@every_problem
def test_the_residual_of_an_unfinished_solve_is_true_as_well(solver, problem):
    solver = tuned(solver, rtol=1e-12, max_steps=3)
    found = fixed_point(problem.f, problem.z0, *problem.args, solver=solver, unconverged="ignore")
    torch.testing.assert_close(found.stats.residual, problem.residual(found.value), rtol=1e-6, atol=1e-14)


@every_solver
@pytest.mark.parametrize("atol", [1e-200, 0.0], ids=["adaptive", "fixed budget"])
def test_the_best_iterate_survives_a_later_divergence(solver, atol):
    """Large parts contract fast, small ones grow: residuals fall, then rise without end."""
    factors = torch.tensor([0.1, 0.2, 1.6], dtype=torch.float64)
    seen = []

    def f(z, x):
        if not torch._C._functorch.is_functorch_wrapped_tensor(z):
            fz = factors * z + x
            seen.append(((fz - z).norm(dim=1) / fz.norm(dim=1), z))
        return factors * z + x

    x = torch.tensor([[1.0, 1.0, 1e-6], [1.0, 2.0, 1e-4]], dtype=torch.float64)
    solver = tuned(solver, rtol=0, atol=atol, max_steps=12, patience=20)
    with torch.no_grad():
        found = fixed_point(f, torch.zeros_like(x), x, solver=solver, unconverged="ignore")
    met = seen[::2] if isinstance(solver, Reversible) else seen  # every other evaluation is at the companion
    residuals = torch.stack([r for r, _ in met])
    best = residuals.argmin(0)
    assert torch.equal(found.stats.residual, residuals.amin(0))
    assert torch.equal(found.value, torch.stack([met[int(k)][1][i] for i, k in enumerate(best)]))
    if isinstance(solver, Picard):
        assert (best < 11).all()
        assert best[0] != best[1]


@every_solver
@pytest.mark.parametrize("rtol", [1e-4, 0.0], ids=["adaptive", "fixed budget"])
def test_a_constant_map_is_solved_exactly(solver, rtol):
    """Histories of zeros: singular Gram matrices, curvature zero."""
    x = torch.randn(4, 6)
    solver = tuned(solver, rtol=rtol, max_steps=60)
    found = fixed_point(lambda z, x: 0 * z + x, torch.randn(4, 6), x, solver=solver, unconverged="ignore")
    exactly = not isinstance(solver, Reversible)  # whose every step is damped
    torch.testing.assert_close(found.value, x, rtol=1e-6 if exactly or not rtol else 1e-3, atol=1e-6)
    assert found.stats.converged.all() or not rtol
    assert not exactly or (found.stats.residual < 1e-6).all()


@every_solver
def test_a_start_at_the_solution_costs_one_evaluation(solver):
    problem = linear()
    solution = problem.reference()
    found = fixed_point(problem.f, solution, *problem.args, solver=solver)
    assert found.stats.num_evals == 1
    assert found.stats.converged.all()
    assert torch.equal(found.value, solution)


@every_solver
def test_zero_is_a_fixed_point_like_any_other(solver):
    found = fixed_point(lambda z: 0.5 * z, torch.zeros(3, 4), solver=solver)
    assert found.stats.num_evals == 1
    assert (found.stats.residual == 0).all()
    assert found.stats.converged.all()


@every_solver
@pytest.mark.parametrize("rtol", [1e-4, 0.0], ids=["adaptive", "fixed budget"])
def test_one_step_returns_the_start_and_its_residual(solver, rtol):
    problem = linear()
    start = torch.ones_like(problem.z0)
    solver = tuned(solver, max_steps=1, rtol=rtol)
    found = fixed_point(problem.f, start, *problem.args, solver=solver, unconverged="ignore")
    torch.testing.assert_close(found.stats.residual, problem.residual(found.value))
    assert (found.stats.status == Status.MAX_STEPS).all()
    if not isinstance(solver, Reversible):
        assert found.stats.num_evals == 1
        assert torch.equal(found.value, start)


@every_solver
def test_a_map_to_zero_is_finite_however_early_it_stops(solver):
    """‖f(z) − z‖ / ‖f(z)‖ is infinite at the start, which is finite all the same."""
    found = fixed_point(lambda z: 0 * z, torch.ones(2, 3), solver=tuned(solver, max_steps=1), unconverged="ignore")
    assert found.value.isfinite().all()


@every_solver
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_units_of_z_do_not_matter(solver, scale, dtype):
    problem = linear(size=30, factor=0.8)
    x, w = (t.to(dtype) for t in problem.args)
    solver = tuned(solver, max_steps=100)
    runs = [
        fixed_point(lambda z, x: z @ w + x, torch.zeros_like(x), factor * x, solver=solver) for factor in (1, scale)
    ]
    assert runs[0].stats.num_evals == runs[1].stats.num_evals
    assert torch.equal(runs[0].stats.num_steps, runs[1].stats.num_steps)
    torch.testing.assert_close(runs[1].value / scale, runs[0].value, rtol=1e-3, atol=1e-4)


@every_solver
@both_halves
def test_half_precision_states_converge(solver, dtype):
    problem = linear(size=64, factor=0.5)
    x, w = (t.to(dtype) for t in problem.args)
    found = fixed_point(lambda z, x: z @ w + x, torch.zeros_like(x), x, solver=tuned(solver, rtol=2e-2))
    assert found.value.dtype == dtype
    assert found.stats.residual.dtype == torch.float32
    assert found.stats.converged.all()
    assert relative_error(found.value.double(), problem.reference()) < 4e-2


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=lambda s: type(s).__name__)
def test_acceleration_needs_fewer_evaluations_than_plain_iteration(solver):
    x = linear(size=30).args[0]
    rates = torch.linspace(0, 0.95, 30).double()
    runs = [
        fixed_point(lambda z: rates * z + x, torch.zeros_like(x), solver=tuned(s, rtol=1e-6, max_steps=500))
        for s in (solver, Picard())
    ]
    assert runs[0].stats.num_evals < 0.35 * runs[1].stats.num_evals


@pytest.mark.parametrize("solver", LINEAR, ids=lambda s: type(s).__name__)
def test_linear_solvers_refuse_general_maps(solver):
    with pytest.raises(SolverError, match=r"met a general map\. Use it inside Implicit\(solver=GMRES\(\)\)"):
        fixed_point(torch.cos, torch.zeros(2, 3), solver=solver)


def test_gmres_ends_after_as_many_products_as_there_are_unknowns():
    problem = linear(size=6, factor=3.0)  # no contraction at all
    x, w = problem.args
    found = GMRES(rtol=1e-9).solve(AffineMap(lambda u: u @ w, x), torch.zeros_like(x), x)
    assert found.stats.converged.all()
    assert (found.stats.num_steps <= 6).all()
    assert found.stats.num_evals <= 8  # it looks at the residual now and then


def test_every_solver_has_been_counted():
    assert len(set(SOLVERS)) == len(SOLVERS)


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=lambda s: type(s).__name__)
def test_few_unknowns_are_eliminated_one_by_one(solver):
    """On linear maps, n unknowns cost Anderson about n + 2 evaluations and Broyden 2 n + 2."""
    x = torch.tensor([[1.0, -2.0, 0.5]]).double()
    rates = torch.tensor([0.9, 0.5, -0.3]).double()
    found = fixed_point(lambda z: rates * z + x, torch.zeros_like(x), solver=tuned(solver, rtol=1e-9))
    assert found.stats.num_evals <= (7 if isinstance(solver, Anderson) else 9)


def test_gmres_begins_anew_when_its_memory_is_full():
    b = torch.randn(2, 40).double()
    rates = torch.linspace(-0.9, 0.9, 40).double()
    runs = {
        memory: GMRES(rtol=1e-6, memory=memory, max_steps=200).solve(AffineMap(lambda u: rates * u, b), 0 * b, b)
        for memory in (1, 4, 60)
    }
    for found in runs.values():
        assert found.stats.converged.all()
        assert relative_error(found.value, b / (1 - rates)) < 1e-5
    assert runs[60].stats.num_evals < runs[4].stats.num_evals < runs[1].stats.num_evals


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rtol", [1e-5, 0.0], ids=["adaptive", "budget"])
@pytest.mark.parametrize("rates", [[1.0] * 4, [1.0, 0, 0, 0], [1, 0.5, 0.3, 0.1]], ids=str)
def test_gmres_makes_nothing_of_what_a_singular_map_hides(rates, rtol, dtype):
    b, j = torch.randn(3, 4, dtype=dtype), torch.tensor(rates, dtype=dtype)
    found = GMRES(rtol=rtol, max_steps=60).solve(AffineMap(lambda u: j * u, b), torch.zeros_like(b), b)
    assert found.value.abs().max() < 100
    fu = j * found.value + b
    true = (fu - found.value).norm(dim=1) / fu.norm(dim=1)
    torch.testing.assert_close(found.stats.residual, true, rtol=1e-3, atol=1e-6)
    assert not found.stats.converged.any()


def test_gmres_counts_the_products_of_each_sample():
    """One sample is solved by a single product, one by two, one needs many, and none waits for the others."""
    x = torch.randn(4, 30).double()
    rates = torch.linspace(0, 0.9, 30).double().repeat(4, 1)
    rates[0], rates[1, :15], rates[1, 15:], rates[3] = 0.5, 0.1, 0.7, 0
    found = GMRES(rtol=1e-9).solve(AffineMap(lambda u: rates * u, x), torch.zeros_like(x), x)
    assert found.stats.num_steps[[0, 1, 3]].tolist() == [1, 2, 1]
    assert 8 < found.stats.num_steps[2] <= found.stats.num_evals
    assert relative_error(found.value, x / (1 - rates)) < 1e-8


@every_solver
def test_single_and_double_precision_take_the_same_path(solver):
    problem = linear()
    solver = tuned(solver, rtol=0, max_steps=4)
    runs = [
        fixed_point(problem.f, problem.z0.to(d), *(a.to(d) for a in problem.args), solver=solver).value.double()
        for d in (torch.float32, torch.float64)
    ]
    assert relative_error(*runs) < 1e-4


@pytest.mark.parametrize("solver", LINEAR, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("tolerance", [0.0, 1e-30], ids=["budget", "adaptive"])
def test_linear_solvers_stay_true_when_no_direction_is_left(solver, dtype, tolerance):
    x, w = (t.to(dtype) for t in linear(size=7).args)
    f = AffineMap(lambda u: u @ w, x)
    found = tuned(solver, rtol=tolerance, max_steps=40).solve(f, torch.zeros_like(x), x)
    true = (f(found.value) - found.value).norm(dim=1) / f(found.value).norm(dim=1)
    assert (true < 100 * torch.finfo(dtype).eps).all()


def test_gmres_is_as_good_in_single_precision_as_in_double():
    """A condition number of 1e4 at a tolerance near the precision: images that are not quite orthogonal would show."""
    rates = 1 - torch.logspace(-4, 0, 128).double()
    b = torch.randn(4, 128).double()
    runs = [
        GMRES(rtol=1e-5, memory=99, max_steps=200).solve(AffineMap(lambda u: rates.to(u) * u, x), 0 * x, x)
        for x in (b.float(), b)
    ]
    assert all(run.stats.converged.all() for run in runs)
    assert runs[0].stats.num_evals <= runs[1].stats.num_evals + 5


@every_solver
def test_norms_whose_squares_vanish_are_norms(solver):
    found = fixed_point(
        lambda z: 1e-25 * z, torch.ones(2, 4), solver=tuned(solver, max_steps=1, atol=1e-30), unconverged="ignore"
    )
    assert found.stats.residual.isfinite().all()
    assert (found.stats.residual > 1).all()


def test_more_memory_than_unknowns_costs_anderson_next_to_nothing():
    """Gram matrices are singular there, and without a ridge rounding errors would be combined."""
    w, x = linear(batch=1, size=2, factor=0.99).args[1].float(), torch.randn(64, 2)
    runs = [
        fixed_point(lambda z: torch.tanh(z @ w) + x, torch.zeros(64, 2), solver=Anderson(rtol=1e-6, memory=m))
        for m in (3, 15)
    ]
    assert runs[1].stats.num_evals <= runs[0].stats.num_evals + 3


def test_between_combinations_the_steps_of_anderson_are_plain():
    w, x = linear(batch=1, size=8, factor=0.9).args[1].float(), torch.randn(3, 8)

    def solve(solver):
        return fixed_point(lambda z: z @ w + x, torch.zeros(3, 8), solver=solver, unconverged="ignore")

    few = {"rtol": 0, "max_steps": 5}
    assert torch.equal(solve(Anderson(period=9, **few)).value, solve(Picard(**few)).value)
    solvers = [Anderson(rtol=1e-5), Anderson(rtol=1e-5, period=3), Picard(rtol=1e-5, max_steps=300)]
    each, third, never = (solve(solver).stats.num_evals for solver in solvers)
    assert each <= third < 0.7 * never
