"""The front door: what it takes, what it refuses, and what it leaves alone."""

import copy
import pickle
import re
from typing import NamedTuple

import pytest
import torch

from deqzoo.adjoints import Implicit, OneStep, Phantom, Unrolled
from deqzoo.errors import StructureError
from deqzoo.fixed_point import fixed_point
from deqzoo.solution import Stats, Status
from deqzoo.solvers import Anderson, Broyden, NewtonKrylov, Picard, Reversible

SOLVERS = [Picard(), Anderson(), Broyden(), NewtonKrylov(), Reversible()]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def half(z, x):
    return 0.5 * z + x


def test_defaults_solve_and_differentiate():
    x = torch.randn(3, 4, requires_grad=True)
    found = fixed_point(half, torch.zeros(3, 4), x)
    torch.testing.assert_close(found.value, 2 * x, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(found.value.sum(), x)[0], torch.full((3, 4), 2.0), rtol=1e-3, atol=0)
    assert found.stats.converged.all()
    assert found.state is None


@every_solver
def test_the_callers_tensors_are_left_alone(solver):
    z0, x = torch.randn(3, 4), torch.randn(3, 4)
    kept = z0.clone(), x.clone()
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            fixed_point(half, z0, x, solver=solver)
    assert torch.equal(z0, kept[0])
    assert torch.equal(x, kept[1])
    assert z0._version == x._version == 0


@every_solver
@pytest.mark.parametrize("rtol", [1e-4, 0.0], ids=["adaptive", "fixed budget"])
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
def test_the_value_is_the_callers_own(solver, rtol, grad):
    """Even where the start is the solution, or where f hands out a tensor of the caller's."""
    solver = type(solver)(rtol=rtol, max_steps=60)
    x = torch.randn(3, 4)
    solution = 2 * x
    kept = x.clone(), solution.clone()
    with torch.set_grad_enabled(grad):
        for value in (
            fixed_point(half, solution, x, solver=solver).value,
            fixed_point(lambda z, x: x, torch.zeros(3, 4), x, solver=solver, unconverged="ignore").value,
        ):
            value.detach().add_(1)
            assert torch.equal(x, kept[0])
            assert torch.equal(solution, kept[1])


@every_solver
@pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])
def test_a_map_that_writes_into_its_state_is_never_silently_wrong(solver, grad):
    """As a cell whose first layer is `nn.ReLU(inplace=True)`: right, or an error."""
    x, z0 = torch.rand(3, 4), torch.ones(3, 4)
    with torch.set_grad_enabled(grad):
        try:
            found = fixed_point(lambda z, x: z.mul_(0.5).add_(x), z0, x, solver=solver)
        except (RuntimeError, ValueError):
            pass
        else:
            torch.testing.assert_close(found.value, 2 * x, rtol=1e-2, atol=1e-3)
            assert torch.equal(z0, torch.ones(3, 4))


def test_arguments_may_be_anything():
    class Pair(NamedTuple):
        scale: float
        shift: torch.Tensor

    x = torch.randn(2, 3, requires_grad=True)
    other = {"bias": torch.randn(2, 3, requires_grad=True)}

    def f(z, x, nested, size, config, nothing, text, pair):
        (a, (b,)), factor = nested
        assert (config, nothing, text) == (other, None, "text")
        assert isinstance(size, torch.Size)
        assert isinstance(pair, Pair)
        return factor * z / size.numel() + x + a * b + config["bias"] + pair.scale * pair.shift

    a, b = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    shift = torch.randn(3, requires_grad=True)
    args = (x, ((a, (b,)), 0.5), torch.Size([1, 2]), other, None, "text", Pair(2.0, shift))
    value = fixed_point(f, torch.zeros(2, 3), *args, solver=Anderson(rtol=1e-6)).value
    torch.testing.assert_close(value, (x + a * b + other["bias"] + 2 * shift) / 0.75, rtol=1e-4, atol=1e-4)
    inputs = (x, a, b, other["bias"], shift)
    wanted = torch.autograd.grad(((x + a * b + other["bias"] + 2 * shift) / 0.75).sum(), inputs)
    for found, want in zip(torch.autograd.grad(value.sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)


def test_states_may_be_strided_or_expanded():
    x = torch.randn(4, 6)
    for z0 in (torch.zeros(4, 12)[:, ::2], torch.zeros(6, 4).T, torch.zeros(1, 6).expand(4, 6)):
        torch.testing.assert_close(fixed_point(half, z0, x).value, 2 * x, rtol=1e-3, atol=1e-3)


def test_a_map_may_return_strided_or_finer_tensors():
    x = torch.randn(4, 6)
    found = fixed_point(lambda z: (0.5 * z + x).T.contiguous().T, torch.zeros(4, 6))
    torch.testing.assert_close(found.value, 2 * x, rtol=1e-3, atol=1e-3)
    found = fixed_point(lambda z: 0.5 * z.double() + x, torch.zeros(4, 6))
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value, 2 * x, rtol=1e-3, atol=1e-3)


def test_channels_last_reaches_the_map_and_comes_back():
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    for solver in SOLVERS:
        seen = []

        def f(z, seen=seen):
            seen.append(z.is_contiguous(memory_format=torch.channels_last))
            return 0.3 * z + x

        with torch.no_grad():
            value = fixed_point(f, torch.zeros_like(x), solver=solver).value
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert not value.is_contiguous()
        assert all(seen)


def test_nests_come_back_as_they_went_in():
    z0 = (torch.zeros(2, 3), (torch.zeros(2), torch.zeros(2, 1, 2)))
    found = fixed_point(lambda z: (0.5 * z[0] + 1, (0.5 * z[1][0] + 2, 0.5 * z[1][1] + 3)), z0)
    assert isinstance(found.value, tuple)
    assert isinstance(found.value[1], tuple)
    for leaf, start, wanted in zip((found.value[0], *found.value[1]), (z0[0], *z0[1]), (2, 4, 6), strict=True):
        torch.testing.assert_close(leaf, torch.full_like(start, wanted), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (
            lambda z: z[:, :2],
            r"`f` changed the shape of leaf 0 from \(2, 3\) to \(2, 2\).*strided or unpadded",
        ),
        (lambda z: (z,), r"`f` turned a state of structure"),
        (lambda z: [z], r"Found list in a state"),
        (lambda z: None, r"Found NoneType in a state"),
        (lambda z: z.long(), r"`f` returned torch\.int64"),
        (lambda z: z.to("meta"), r"`f` returned torch\.float32 on meta"),
    ],
)
@every_solver
def test_a_map_that_does_not_fit_is_named(solver, f, message):
    with pytest.raises(StructureError, match=message):
        fixed_point(f, torch.zeros(2, 3), solver=solver)


def test_what_is_no_state_is_refused():
    with pytest.raises(StructureError, match="scalar"):
        fixed_point(torch.cos, torch.tensor(0.5))
    with pytest.raises(StructureError, match="int64"):
        fixed_point(torch.cos, torch.zeros(2, 3).long())


@pytest.mark.parametrize("policy", ["warning", "", None, True])
def test_an_unknown_policy_is_named(policy):
    with pytest.raises(
        ValueError,
        match=re.escape(f'unconverged={policy!r} is no policy. Choose "ignore", "warn" or "raise"'),
    ):
        fixed_point(half, torch.zeros(2, 3), torch.ones(2, 3), unconverged=policy)


def test_unknown_keywords_are_type_errors():
    with pytest.raises(TypeError, match="tolerance"):
        fixed_point(half, torch.zeros(2, 3), torch.ones(2, 3), tolerance=1e-3)


def test_errors_of_the_map_come_through_unchanged():
    def f(z):
        raise KeyError("mine")

    for solver in SOLVERS:
        with pytest.raises(KeyError, match="mine"):
            fixed_point(f, torch.zeros(2, 3), solver=solver)


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(), OneStep(), Unrolled()], ids=lambda a: type(a).__name__)
def test_statistics_carry_no_graph(adjoint):
    x = torch.randn(2, 3, requires_grad=True)
    stats = fixed_point(half, torch.zeros(2, 3), x, solver=Picard(), adjoint=adjoint).stats
    for value in (stats.residual, stats.num_steps, stats.status, stats.converged):
        assert not value.requires_grad
        assert value.shape == (2,)
    assert stats.num_steps.dtype == stats.status.dtype == torch.int64
    assert stats.converged.dtype == torch.bool


def test_statistics_speak():
    stats = Stats(
        num_evals=7,
        num_steps=torch.tensor([3, 7, 0]),
        residual=torch.tensor([1e-5, 0.25, torch.inf]),
        status=torch.tensor([Status.CONVERGED, Status.STALLED, Status.NONFINITE]),
    )
    text = str(stats)
    assert text.startswith("1 of 3 samples reached the tolerance; 1 of 3 samples stopped improving")
    assert "1 of 3 samples met NaN or inf" in text
    assert text.endswith("(7 evaluations, worst residual inf)")
    assert len({s.describe() for s in Status}) == len(Status)
    empty = Stats(num_evals=1, **{k: torch.zeros(0) for k in ("num_steps", "residual", "status")})
    assert str(empty) == "no samples (1 evaluations)"


def test_solutions_are_values():
    with torch.no_grad():
        found = fixed_point(half, torch.zeros(2, 3), torch.ones(2, 3))
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert torch.equal(twin.value, found.value)
        assert str(twin.stats) == str(found.stats)
    with pytest.raises(AttributeError):
        found.value = None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo's own doing
def test_a_solve_inside_a_compiled_function_is_the_same():
    w = torch.randn(4, 4) * 0.1

    def run(x):
        return fixed_point(lambda z, x: torch.tanh(z @ w) + x, torch.zeros_like(x), x.sin()).value.cos()

    x = torch.randn(3, 4, requires_grad=True)
    compiled = torch.compile(run, backend="eager")
    gradients = [torch.autograd.grad(r(x).sum(), x)[0] for r in (run, compiled)]
    assert torch.equal(compiled(x), run(x))
    assert torch.equal(*gradients)
