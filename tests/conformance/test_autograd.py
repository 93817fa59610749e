"""Everything that people do with autograd works through every adjoint, or is refused in words."""

import warnings

import pytest
import torch
from torch import Tensor

from deqzoo.adjoints import Implicit, OneStep, Phantom, Reversible, Unrolled
from deqzoo.errors import AdjointError, SolverError, UnconvergedWarning
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Status
from deqzoo.solvers import Anderson, Broyden, Picard
from deqzoo.solvers import Reversible as ReversibleSolver

from .catalogue import every_pair, every_refused_pair, every_solver, tuned
from .test_gradients import Case, assert_gradients


def grads(total: Tensor, case: Case, **how: object) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, list(case.leaves.values()), **how)


@every_pair
def test_a_value_may_be_used_twice_before_one_backward(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=solver, adjoint=adjoint)
    both = grads(value.sin().sum() + (value**2).sum(), case, retain_graph=True)
    parts = [grads(t.sum(), case, retain_graph=True) for t in (value.sin(), value**2)]
    assert_gradients(both, tuple(a + b for a, b in zip(*parts, strict=True)), 1e-3)


@every_pair
def test_a_retained_graph_gives_the_same_gradients_again(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=solver, adjoint=adjoint)
    first = case.gradients(value, retain_graph=True)
    second = case.gradients(value)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        case.gradients(value)


@every_pair
def test_two_solves_accumulate_in_one_backward(pair):
    solver, adjoint = pair
    case = Case()
    values = [
        fixed_point(case.f, case.z0, scale * case.x, (case.y, 0.5), solver=solver, adjoint=adjoint).value
        for scale in (1.0, 0.3)
    ]
    sum(v.sum() for v in values).backward(retain_graph=True)
    accumulated = [leaf.grad for leaf in case.leaves.values()]
    parts = [grads(v.sum(), case, retain_graph=True) for v in values]
    assert_gradients(tuple(accumulated), tuple(a + b for a, b in zip(*parts, strict=True)), 1e-12)


@every_pair
def test_equilibria_may_feed_equilibria(pair):
    solver, adjoint = pair
    case = Case()
    tight = tuned(solver, rtol=1e-10, max_steps=200)
    first = case.value(solver=tight, adjoint=adjoint)
    second = fixed_point(case.f, case.z0, first, (case.y, 0.5), solver=tight, adjoint=adjoint).value
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in grads(second.sum(), case))


@every_pair
def test_backward_runs_under_any_autocast(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=solver, adjoint=adjoint)
    plain = case.gradients(value, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other = case.gradients(value)
    assert_gradients(other, plain, 1e-6)


@every_pair
def test_forward_under_autocast_keeps_it_in_backward(pair):
    solver, adjoint = pair
    if isinstance(adjoint, Implicit):
        adjoint = Implicit(solver=Anderson(rtol=1e-2))  # products in bfloat16 resolve no more
    w = (0.1 * torch.randn(6, 6)).requires_grad_()
    x = torch.randn(4, 6).requires_grad_()
    dtypes = set()

    def f(z: Tensor, x: Tensor) -> Tensor:
        product = z @ w
        dtypes.add(product.dtype)
        return torch.tanh(product) + x

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = fixed_point(f, torch.zeros(4, 6), x, solver=tuned(solver, rtol=1e-3), adjoint=adjoint).value
    gradients = torch.autograd.grad(value.sum(), (x, w))
    assert dtypes == {torch.bfloat16}
    assert value.dtype == torch.float32
    assert [g.dtype for g in gradients] == [torch.float32] * 2
    z = torch.zeros(4, 6)
    for _ in range(30):
        z = torch.tanh(z @ w) + x
    if not isinstance(adjoint, Phantom | OneStep):
        assert_gradients(gradients, torch.autograd.grad(z.sum(), (x, w)), 2e-2)


@every_pair
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_graph_is_built_where_none_is_wanted(pair, context):
    solver, adjoint = pair
    case = Case()
    with context():
        value = case.value(solver=solver, adjoint=adjoint)
    assert value.grad_fn is None
    assert not value.requires_grad
    torch.testing.assert_close(value, case.value(solver=solver, adjoint=adjoint).detach())


@every_pair
def test_frozen_inputs_give_a_value_without_graph(pair):
    solver, adjoint = pair
    case = Case()
    for leaf in case.leaves.values():
        leaf.requires_grad_(False)
    assert not case.value(solver=solver, adjoint=adjoint).requires_grad


@every_pair
def test_second_derivatives_are_right_or_refused(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=solver, adjoint=adjoint)
    if isinstance(adjoint, Unrolled):
        assert case.gradients(value, create_graph=True)[0].requires_grad
        return
    with pytest.raises(AdjointError, match=r"second derivative.*create_graph=True.*Use `adjoint=Unrolled\(\)`"):
        case.gradients(value, create_graph=True)


@every_pair
def test_weights_changed_before_backward_never_give_wrong_gradients(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=solver, adjoint=adjoint)
    if isinstance(adjoint, OneStep):  # whose gradient does not depend on W once z is known
        wanted = case.gradients(value, retain_graph=True)
        with torch.no_grad():
            case.w.mul_(0.5)
        assert_gradients(case.gradients(value), wanted, 0)
        return
    with torch.no_grad():
        case.w.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        case.gradients(value)


@every_pair
def test_the_value_may_be_changed_in_place(pair):
    """As `nn.ReLU(inplace=True)` behind an equilibrium does."""
    solver, adjoint = pair
    case = Case()
    plain = case.gradients(case.value(solver=solver, adjoint=adjoint).relu())
    changed = case.gradients(case.value(solver=solver, adjoint=adjoint).relu_())
    assert_gradients(changed, plain, 1e-12)


@every_pair
def test_a_masked_loss_gives_masked_samples_no_gradient(pair):
    solver, adjoint = pair
    case = Case()
    found = fixed_point(case.f, case.z0, *case.args, solver=solver, adjoint=adjoint)
    gradient = torch.autograd.grad(found.value[1:3].sum(), case.x)[0]
    assert (gradient[[0, 3]] == 0).all()
    assert (gradient[[1, 2]] != 0).any(1).all()
    assert found.backward_stats is None or found.backward_stats.converged.all()


@every_pair
def test_a_broken_sample_spoils_no_other_gradient(pair):
    solver, adjoint = pair
    case = Case()
    c = torch.randn(6).double()

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        found = fixed_point(
            lambda z, x: 0.4 * z / (1 + z * z) + x,
            case.z0,
            x,
            solver=solver,
            adjoint=adjoint,
            unconverged="ignore",
        )
        return torch.autograd.grad((found.value * c).sum(), x)[0]

    poisoned = case.x.detach().clone()
    poisoned[1, 2] = torch.nan
    others = [0, 2, 3]
    assert torch.equal(gradient(poisoned)[others], gradient(case.x)[others])


@every_pair
def test_batches_may_be_empty(pair):
    solver, adjoint = pair
    w = torch.ones(3, 3, requires_grad=True)
    x = torch.zeros(0, 3, requires_grad=True)
    value = fixed_point(lambda z, x: torch.tanh(z @ w) + x, torch.zeros(0, 3), x, solver=solver, adjoint=adjoint).value
    if isinstance(adjoint, Unrolled):  # no step was taken
        assert torch.equal(value, x)
        return
    gradients = torch.autograd.grad(value.sum(), (x, w), materialize_grads=True)
    assert gradients[0].shape == (0, 3)
    assert (gradients[1] == 0).all()


@every_pair
def test_backward_statistics_tell_of_backward_solves(pair):
    solver, adjoint = pair
    case = Case()
    found = fixed_point(case.f, case.z0, *case.args, solver=solver, adjoint=adjoint)
    assert found.backward_stats is None
    case.gradients(found.value, retain_graph=True)
    case.gradients(found.value)
    if not isinstance(adjoint, Implicit):
        assert found.backward_stats is None
        return
    assert len(found.backward_log) == 1  # the latest, however many there were
    stats = found.backward_stats
    assert stats.converged.all()
    assert stats.residual.shape == (4,)
    assert (stats.residual <= 1e-4).all()
    assert 1 < stats.num_evals <= 30


@every_solver
def test_the_policy_holds_for_the_forward_solve(solver):
    case = Case()
    hasty = tuned(solver, max_steps=2, rtol=1e-9)
    with pytest.warns(UnconvergedWarning, match=r"The forward solve did not converge: 4 of 4 samples ran out of steps"):
        case.value(solver=hasty)
    with pytest.raises(SolverError, match=r"The forward solve.*max_steps.*unconverged=\"ignore\""):
        case.value(solver=hasty, unconverged="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fixed_point(case.f, case.z0, *case.args, solver=hasty, unconverged="ignore")
        case.value(solver=tuned(hasty, rtol=0))  # a fixed budget has no tolerance to miss
    with pytest.raises(SolverError, match="4 of 4 samples ran out of steps"):
        found.raise_if_failed()
    assert (found.stats.status == Status.MAX_STEPS).all()


def test_the_policy_holds_for_the_backward_solve():
    case = Case()
    adjoint = Implicit(solver=Picard(max_steps=2, rtol=1e-9))
    with pytest.warns(UnconvergedWarning, match="The backward solve did not converge: 4 of 4 samples"):
        case.gradients(case.value(adjoint=adjoint))
    value = case.value(adjoint=adjoint, unconverged="raise")
    with pytest.raises(SolverError, match="The backward solve did not converge"):
        case.gradients(value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.gradients(case.value(adjoint=adjoint, unconverged="ignore"))
        case.gradients(case.value(adjoint=Implicit(solver=Picard(max_steps=2, rtol=0))))


@every_refused_pair
def test_pairs_that_do_not_go_together_say_what_does(pair):
    solver, adjoint = pair
    found = type(solver).__name__
    with pytest.raises(AdjointError, match=rf"{type(adjoint).__name__}\(\) met solver={found}.*adjoint=Implicit\(\)"):
        Case().value(solver=solver, adjoint=adjoint)


def test_reuse_asks_for_broyden():
    with pytest.raises(AdjointError, match=r"reuse=True.*Anderson.*Only Broyden.*solver=Broyden\(\) or reuse=False"):
        Case().value(solver=Anderson(), adjoint=Implicit(reuse=True))
    assert Case().value(solver=Broyden(), adjoint=Implicit(reuse=True)).requires_grad


def test_reversible_refuses_tensors_it_cannot_recompute():
    case = Case()
    derived = 2 * case.w
    how = {"solver": ReversibleSolver(), "adjoint": Reversible()}
    with pytest.raises(AdjointError, match=r"computed outside of it \(by MulBackward0\).*fixed_point in \*args"):
        fixed_point(lambda z, x: torch.tanh(0.1 * z @ derived) + x, case.z0, case.x, **how)
    value = fixed_point(lambda z, x, d: torch.tanh(0.1 * z @ d) + x, case.z0, case.x, derived, **how).value
    assert torch.autograd.grad(value.sum(), case.w)[0].abs().sum() > 0


@every_pair
def test_an_outer_parametrisation_cache_is_refused(pair):
    solver, adjoint = pair
    case = Case()
    with (
        torch.nn.utils.parametrize.cached(),
        pytest.raises(AdjointError, match=r"inside `parametrize\.cached\(\)`.*leave that context"),
    ):
        case.value(solver=solver, adjoint=adjoint)


@every_pair
def test_gradients_are_accumulated_once(pair):
    """What data-parallel training builds upon."""
    solver, adjoint = pair
    case = Case()
    seen = []
    case.w.register_post_accumulate_grad_hook(lambda w: seen.append(w.grad.clone()))
    case.value(solver=solver, adjoint=adjoint).sum().backward()
    assert len(seen) == 1
    assert torch.equal(seen[0], case.w.grad)


@every_pair
def test_tensor_hooks_see_the_whole_gradient(pair):
    """Once, but for the Reversible adjoint: there after its parts, one for each evaluation."""
    solver, adjoint = pair
    case = Case()
    seen = []
    case.w.register_hook(seen.append)
    case.value(solver=solver, adjoint=adjoint).sum().backward()
    assert len(seen) == 1 or isinstance(adjoint, Reversible)
    assert torch.equal(seen[-1], case.w.grad)
