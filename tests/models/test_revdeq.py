"""Reversible equilibria: the published size, gradients of the very steps taken, and steps that can be undone."""

import pytest
import torch
from torch import Tensor

from deqzoo.adjoints import Implicit, Reversible
from deqzoo.errors import AdjointError
from deqzoo.models import entry
from deqzoo.models.revdeq import RevDEQ
from deqzoo.nn import equilibria, observe_equilibria, set_runtime
from deqzoo.solvers import Anderson
from deqzoo.solvers import Reversible as ReversibleSolver


def small() -> RevDEQ:
    torch.manual_seed(0)
    return RevDEQ((16, 32), (1, 2), in_chans=2, num_classes=3)


def test_the_network_has_its_published_number_of_parameters():
    net = entry("revdeq-cifar").build()
    assert sum(p.numel() for p in net.parameters()) == 10_319_754
    assert [info["num_chs"] for info in net.feature_info] == [128, 256, 256, 128]


def test_maps_are_those_that_are_announced():
    net = small().eval()
    with torch.no_grad(), observe_equilibria(net) as seen:
        maps = net.forward_maps(torch.randn(2, 2, 12, 8))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 12, 8), (2, 32, 6, 4)]
    assert all(solution.stats.num_evals == 9 for _, solution in seen.solutions)  # two per step, one for the residual


def test_gradients_are_those_of_the_steps_that_were_taken():
    net = small().double()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)

    def unrolled(module, x: Tensor) -> Tensor:
        z = y = torch.zeros_like(x)
        with torch.no_grad():
            steps = (module.solve(x).stats.num_steps - 1) // 2
        states = [z]
        for _ in range(4):
            y = 0.2 * y + 0.8 * module.cell(z, x)
            z = 0.2 * z + 0.8 * module.cell(y, x)
            states.append(z)
        # Each sample's best iterate.
        return torch.stack([states[int(step)][i] for i, step in enumerate(steps)])

    def plain(x: Tensor) -> Tensor:
        x = net.stem(x)
        for stage, module in enumerate(net.equilibria):
            x = net.halvings[stage - 1](x) if stage else x
            x = x + unrolled(module, x)
        return net.fc(x.mean((2, 3)))

    logits = net(x), plain(x)
    torch.testing.assert_close(*logits)
    gradients = [torch.autograd.grad(out.square().sum(), list(net.parameters())) for out in logits]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("damping", [0.3, 0.5, 0.8, 0.95])
def test_steps_are_undone_to_the_digits_that_their_segment_leaves(damping):
    """Undoing a step multiplies errors by 1 / (1 − β)²: a segment of them costs six of sixteen digits at most."""
    torch.manual_seed(0)
    w = torch.randn(20, 20, dtype=torch.float64)
    w = 0.9 * w / torch.linalg.matrix_norm(w, ord=2)
    x = torch.randn(5, 20, dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        return torch.tanh(z @ w + x)

    segment = ReversibleSolver(damping=damping).segment
    solver = ReversibleSolver(damping=damping, rtol=0, max_steps=segment)
    start = torch.randn(5, 20, dtype=torch.float64)
    trajectory = solver.solve(f, start).state
    z, y = trajectory.z, trajectory.y
    for step in range(segment, 0, -1):
        rows = (trajectory.num_steps >= step)[:, None]
        z_before = (z - damping * f(y)) / (1 - damping)
        y_before = (y - damping * f(z_before)) / (1 - damping)
        z, y = torch.where(rows, z_before, z), torch.where(rows, y_before, y)
    error = max(float((z - start).abs().max()), float((y - start).abs().max()))
    assert error <= 100 * torch.finfo(torch.float64).eps * (1 - damping) ** (-2 * segment)
    if damping < 0.9:  # one step costs more than six digits only beyond
        assert error <= 1e-8


def test_solvers_that_cannot_be_undone_are_refused():
    net = small()
    set_runtime(net, solver=Anderson())
    with pytest.raises(AdjointError, match=r"Reversible\(\) met solver=Anderson.*Take solver=solvers\.Reversible\(\)"):
        net(torch.randn(2, 2, 8, 8))
    set_runtime(net, adjoint=Implicit(), rtol=0.5)
    assert net(torch.randn(2, 2, 8, 8)).shape == (2, 3)
    assert not any(isinstance(module.adjoint, Reversible) for module in equilibria(net).values())


@pytest.mark.parametrize(
    ("widths", "expansions", "message"),
    [
        ((), (), r"widths=\(\).*one number per stage"),
        ((16, 32), (1,), r"expansions=\(1,\).*one number per stage"),
        ((16, 20), (1, 1), r"widths=\(16, 20\).*groups of 16"),
    ],
)
def test_wrong_sizes_are_named(widths, expansions, message):
    with pytest.raises(ValueError, match=message):
        RevDEQ(widths, expansions)
