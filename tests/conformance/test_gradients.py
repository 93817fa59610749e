"""Gradients of every adjoint with every solver, against a long unroll and its own definition."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deqzoo.adjoints import Implicit, OneStep, Phantom, Reversible, Unrolled
from deqzoo.fixed_point import fixed_point
from deqzoo.solvers import GMRES, Anderson, Broyden, Picard
from deqzoo.solvers import Reversible as ReversibleSolver

from .catalogue import every_linear_solver, every_pair, every_solver, exact, tuned
from .problems import contraction, flat, relative_error

EXACT = (Implicit, Reversible, Unrolled)


class Case:
    """z = tanh(z W + s y) + b x: arguments, one in a nest, a parameter and a captured leaf."""

    def __init__(self, batch: int = 4, size: int = 6) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x, self.y, self.b, self.cotangent = (
            torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (batch, batch, 1, batch)
        )
        self.w = torch.nn.Parameter(contraction(size, 0.6))
        self.leaves = {"x": self.x, "y": self.y, "w": self.w, "b": self.b}
        for leaf in self.leaves.values():
            leaf.requires_grad_()

    def f(self, z: Tensor, x: Tensor, rest: tuple[Tensor, float]) -> Tensor:
        y, s = rest
        return torch.tanh(z @ self.w + s * y) + self.b * x

    @property
    def args(self) -> tuple:
        return self.x, (self.y, 0.5)

    @property
    def z0(self) -> Tensor:
        return torch.zeros_like(self.x)

    def value(self, **how: object) -> Tensor:
        return fixed_point(self.f, self.z0, *self.args, **how).value

    def gradients(self, value: Tensor, **how: object) -> tuple[Tensor, ...]:
        return torch.autograd.grad((value * self.cotangent).sum(), list(self.leaves.values()), **how)

    def reference(self) -> tuple[Tensor, ...]:
        z = self.z0
        for _ in range(150):
            z = self.f(z, *self.args)
        return self.gradients(z)


def precise(adjoint):
    return Implicit(solver=Anderson(rtol=1e-11, max_steps=200)) if isinstance(adjoint, Implicit) else adjoint


def assert_gradients(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], tolerance: float = 1e-6) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert relative_error(a, b) <= tolerance


@every_pair
def test_gradients_agree_with_a_long_unroll(pair):
    solver, adjoint = pair
    case = Case()
    value = case.value(solver=exact(solver), adjoint=precise(adjoint))
    error = 1e-6 if isinstance(adjoint, EXACT) else 0.8  # approximations point in the right direction
    assert_gradients(case.gradients(value), case.reference(), error)


@every_linear_solver
def test_any_solver_solves_the_backward_system(solver):
    case = Case()
    value = case.value(solver=Anderson(rtol=1e-11, max_steps=99), adjoint=Implicit(solver=exact(solver)))
    assert_gradients(case.gradients(value), case.reference(), 1e-8)


@every_pair
def test_gradients_of_nested_states_agree_with_a_long_unroll(pair):
    solver, adjoint = pair
    if not isinstance(adjoint, EXACT):
        adjoint = Phantom(steps=80, damping=1.0)
    torch.manual_seed(5)
    x = torch.randn(3, 4, 2, 2).double().requires_grad_()
    w = torch.randn(4, 4).double().mul_(0.1).requires_grad_()

    def f(z, x):
        a, (b,) = z
        return torch.tanh(torch.einsum("bchw,cd->bdhw", a, w) + 0.3 * b[:, :, None, None]) + x, (a.mean((2, 3)) @ w,)

    z0 = torch.zeros(3, 4, 2, 2).double(), (torch.zeros(3, 4).double(),)
    found = fixed_point(f, z0, x, solver=exact(solver), adjoint=precise(adjoint)).value
    wanted = z0
    for _ in range(100):
        wanted = f(wanted, x)
    cotangent = torch.randn(3, 20).double()
    gradients = [torch.autograd.grad((flat(z) * cotangent).sum(), (x, w)) for z in (found, wanted)]
    assert_gradients(*gradients)


@every_solver
def test_gradients_of_images_keep_the_memory_format(solver):
    x = torch.randn(2, 3, 4, 4).double().to(memory_format=torch.channels_last).requires_grad_()
    kernel = torch.randn(3, 3, 3, 3).double() * 0.05
    seen = []

    def f(z, x):
        seen.append(z.is_contiguous(memory_format=torch.channels_last))
        return torch.tanh(torch.nn.functional.conv2d(z, kernel, padding=1)) + x

    value = fixed_point(f, torch.zeros_like(x), x, solver=exact(solver), adjoint=precise(Implicit())).value
    assert value.is_contiguous(memory_format=torch.channels_last)
    assert all(seen)
    wanted = torch.zeros_like(x)
    for _ in range(60):
        wanted = f(wanted, x)
    c = torch.randn(2, 3, 4, 4).double()
    assert_gradients(*(torch.autograd.grad((z * c).sum(), x) for z in (value, wanted)))


@every_solver
@pytest.mark.parametrize("adjoint", [Phantom(steps=4, damping=0.3), Phantom(), OneStep()], ids=str)
def test_phantom_and_one_step_are_their_formulas(solver, adjoint):
    case = Case()
    value = case.value(solver=exact(solver), adjoint=adjoint)
    z = value.detach()
    if isinstance(adjoint, OneStep):
        z = case.f(z, *case.args)
    else:
        for _ in range(adjoint.steps):
            z = (1 - adjoint.damping) * z + adjoint.damping * case.f(z, *case.args)
    assert_gradients(case.gradients(value), case.gradients(z), 1e-13)


def test_many_phantom_steps_give_the_implicit_gradient():
    case = Case()
    value = case.value(solver=exact(Picard()), adjoint=Phantom(steps=150))
    assert_gradients(case.gradients(value), case.reference(), 1e-9)


@pytest.mark.parametrize("steps", [1, 2, 5, 14, 29])
@pytest.mark.parametrize("damping", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("tolerance", [{"rtol": 0.0}, {"rtol": 0.0, "atol": 1e-200}], ids=["budget", "adaptive"])
def test_reversible_is_the_gradient_of_the_steps_that_were_taken(steps, damping, tolerance):
    case = Case()
    start = torch.randn(4, 6).double().requires_grad_()
    solver = ReversibleSolver(damping=damping, max_steps=steps, **tolerance)
    found = fixed_point(case.f, start, *case.args, solver=solver, adjoint=Reversible(), unconverged="ignore")
    z = y = start
    for _ in range(steps):
        y = (1 - damping) * y + damping * case.f(z, *case.args)
        z = (1 - damping) * z + damping * case.f(y, *case.args)
    torch.testing.assert_close(found.value, z, rtol=1e-12, atol=1e-12)
    wanted = [start, *case.leaves.values()]
    gradients = [torch.autograd.grad((v * case.cotangent).sum(), wanted) for v in (found.value, z)]
    assert_gradients(*gradients, 1e-8)


def test_reversible_undoes_each_sample_from_where_it_stopped():
    """Samples that need few steps and many, and one whose best iterate is not its last."""
    rates = torch.tensor([[0.1], [0.6], [0.9]]).double()
    x = torch.full((3, 2), 0.1).double().requires_grad_()
    start = torch.zeros(3, 2).double().requires_grad_()
    solver = ReversibleSolver(rtol=1e-3, max_steps=40)
    found = fixed_point(lambda z, x: rates * torch.sin(z) + x, start, x, solver=solver, adjoint=Reversible())
    assert len(found.stats.num_steps.unique()) == 3
    total = torch.zeros(())
    for i, evaluations in enumerate(found.stats.num_steps.tolist()):
        z = y = start[i]
        for _ in range((evaluations - 1) // 2):
            y = 0.5 * y + 0.5 * (rates[i] * torch.sin(z) + x[i])
            z = 0.5 * z + 0.5 * (rates[i] * torch.sin(y) + x[i])
        total = total + z.sum()
    gradients = [torch.autograd.grad(v, (start, x)) for v in (found.value.sum(), total)]
    assert_gradients(*gradients, 1e-9)


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        (Anderson(rtol=1e-12, max_steps=200), Implicit(solver=GMRES(rtol=1e-12))),
        (Picard(rtol=0, max_steps=12), Unrolled()),
        (ReversibleSolver(rtol=0, max_steps=12), Reversible()),
    ],
    ids=str,
)
def test_gradcheck(solver, adjoint):
    case = Case(batch=2, size=3)

    def solve(x: Tensor, y: Tensor) -> Tensor:
        return fixed_point(case.f, torch.zeros_like(x), x, (y, 0.5), solver=solver, adjoint=adjoint).value

    assert torch.autograd.gradcheck(solve, (case.x, case.y))


def test_unrolled_has_second_derivatives():
    case = Case(batch=2, size=3)
    solver = Picard(rtol=0, max_steps=8)

    def solve(x: Tensor) -> Tensor:
        return fixed_point(case.f, torch.zeros_like(x), x, (case.y, 0.5), solver=solver, adjoint=Unrolled()).value

    assert torch.autograd.gradgradcheck(solve, (case.x,))


@pytest.mark.parametrize("solver", [Picard(rtol=0, max_steps=3), ReversibleSolver(rtol=0, max_steps=3)], ids=str)
def test_exact_adjoints_differentiate_the_start(solver):
    start = torch.zeros(2, 3).double().requires_grad_()
    adjoint = Unrolled() if isinstance(solver, Picard) else Reversible()
    value = fixed_point(lambda z: 0.5 * z + 1, start, solver=solver, adjoint=adjoint).value
    assert (torch.autograd.grad(value.sum(), start)[0] > 0).all()


@pytest.mark.parametrize("budget", [1, 30])
def test_reuse_starts_from_the_inverse_of_the_forward_solve(budget):
    case = Case()
    adjoint = Implicit(solver=tuned(Anderson(), rtol=1e-11, max_steps=budget), reuse=True)
    found = fixed_point(case.f, case.z0, *case.args, solver=exact(Broyden()), adjoint=adjoint, unconverged="ignore")
    gradients = case.gradients(found.value)
    if budget == 1:
        assert found.backward_stats is not None
        assert found.backward_stats.num_evals == 1
    assert_gradients(gradients, case.reference(), 0.5 if budget == 1 else 1e-8)


@every_pair
def test_a_map_that_does_not_use_its_state_has_a_gradient(pair):
    solver, adjoint = pair
    x = torch.randn(3, 4).double().requires_grad_()
    value = fixed_point(lambda z, x: 2 * x, torch.zeros(3, 4).double(), x, solver=exact(solver), adjoint=adjoint).value
    wanted = 2 * (1 - (1 - adjoint.damping) ** adjoint.steps) if isinstance(adjoint, Phantom) else 2.0
    torch.testing.assert_close(torch.autograd.grad(value.sum(), x)[0], torch.full((3, 4), wanted).double())


@every_pair
def test_inputs_that_do_not_matter_get_zero_or_none(pair):
    solver, adjoint = pair
    x, unused = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    f: Callable = lambda z, x, unused: 0.3 * z + x  # noqa: E731
    value = fixed_point(f, torch.zeros(3, 4), x, unused, solver=solver, adjoint=adjoint).value
    gradients = torch.autograd.grad(value.sum(), (x, unused), allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None or (gradients[1] == 0).all()
