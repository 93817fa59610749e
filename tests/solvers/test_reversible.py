"""Reversible steps are undone within a bound that is told, and no further."""

import re

import pytest
import torch
from torch import Tensor

from deqzoo.errors import SolverError
from deqzoo.solvers import Reversible


def problem(dtype: torch.dtype, gain: float = 0.9, width: int = 300):
    """A map that stretches by `gain` at most, and where to start."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(width, width, generator=generator, dtype=torch.float64)
    w = (w * gain / torch.linalg.matrix_norm(w, ord=2)).to(dtype)
    x, z0 = torch.randn(2, 5, width, generator=generator, dtype=torch.float64).to(dtype)
    return lambda z: torch.tanh(z @ w.mT) + x, z0


def states(f, z0: Tensor, beta: float, count: int) -> list[tuple[Tensor, Tensor]]:
    """The pairs before each step and after the last."""
    z = y = z0.double()
    met = [(z, y)]
    for _ in range(count):
        y = torch.lerp(y, f(z.to(z0.dtype)).double(), beta)
        z = torch.lerp(z, f(y.to(z0.dtype)).double(), beta)
        met.append((z, y))
    return met


def distance(found, pair: tuple[Tensor, Tensor]) -> Tensor:
    return torch.maximum((found.z - pair[0]).norm(dim=1), (found.y - pair[1]).norm(dim=1))


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 4), (torch.float64, 7)], ids=str)
@pytest.mark.parametrize("beta", [0.3, 0.6, 0.8])
def test_what_is_reconstructed_is_as_close_as_is_told(dtype, steps, beta):
    f, z0 = problem(dtype)
    found = Reversible(damping=beta, rtol=0, max_steps=steps).solve(f, z0)
    assert (found.state.num_steps == steps).all()
    met = states(f, z0, beta, steps)
    size = torch.cat(met[-1], dim=1).norm(dim=1)
    for back in range(steps + 1):
        undone = Reversible(damping=beta, rtol=0, max_steps=steps).undo(f, found.state, back)
        off = distance(undone, met[steps - back])
        assert (off <= undone.error).all()
        assert (undone.error <= 0.1 * size).all()
        assert (off <= 1e-4 * size).all()
    assert off.max() > 0  # or the bound would bound nothing


@pytest.mark.parametrize("gain", [0.1, 2.0])
def test_the_bound_holds_for_maps_that_stretch_less_or_more(gain):
    f, z0 = problem(torch.float32, gain)
    solver = Reversible(damping=0.6, rtol=0, max_steps=4)
    found = solver.solve(f, z0)
    met = states(f, z0, 0.6, 4)
    least = solver.undo(f, found.state, lipschitz=gain, rtol=1e9)
    taken = [int(n) for n in found.state.num_steps]
    assert (distance(least, met[0]) <= least.error).all()
    assert max(taken) <= 4
    more = solver.undo(f, found.state, lipschitz=2 * gain, rtol=1e9)
    assert (more.error > least.error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_more_than_the_precision_allows_is_refused_and_what_is_advised_is_not(dtype):
    f, z0 = problem(dtype)
    solver = Reversible(damping=0.8, rtol=0, max_steps=20)
    found = solver.solve(f, z0)
    with pytest.raises(
        SolverError, match=r"Undoing \d+ steps may leave \d samples wrong by .* 0\.1 is accepted"
    ) as caught:
        solver.undo(f, found.state)
    advised = re.search(r"errors by 25 or more.*undo at most (\d+) steps, solve with record=True", str(caught.value))
    assert advised is not None
    most = int(advised[1])
    assert 2 <= most <= 12
    assert (solver.undo(f, found.state, most).error > 0).all()
    with pytest.raises(SolverError, match=f"undo at most {most} steps"):
        solver.undo(f, found.state, most + 1)
    with pytest.raises(SolverError, match="1e-09 is accepted"):
        solver.undo(f, found.state, most, rtol=1e-9)


def test_checkpoints_lead_all_the_way_back():
    f, z0 = problem(torch.float32)
    solver = Reversible(damping=0.8, rtol=0, max_steps=20)
    undone = solver.undo(f, solver.solve(f, z0, record=True).state)
    assert torch.equal(undone.z, z0.double())
    assert torch.equal(undone.y, z0.double())
    assert not undone.error.any()


def test_every_sample_goes_back_its_own_way():
    f, z0 = problem(torch.float64)
    solver = Reversible(damping=0.4, rtol=1e-3, max_steps=30)
    near = solver.solve(f, z0, record=True).value
    start = torch.cat((z0[:1], near[1:2], z0[2:3] + 100))

    def three(z: Tensor) -> Tensor:
        return torch.cat([f(row.expand_as(z0))[i : i + 1] for i, row in enumerate(z)])

    found = solver.solve(three, start)
    taken = found.state.num_steps.tolist()
    assert len(set(taken)) == 3
    fewest = min(taken)
    undone = solver.undo(three, found.state, fewest + 1, rtol=1e9)
    for i, steps in enumerate(taken):
        z, y = states(three, start, 0.4, steps)[max(0, steps - fewest - 1)]
        assert distance(undone, (z, y))[i] <= undone.error[i]
        torch.testing.assert_close(undone.z[i], z[i], rtol=1e-9, atol=1e-9)


def test_a_sample_of_nan_is_refused_and_nothing_to_undo_is_not():
    f, z0 = problem(torch.float32)
    z0[1] = torch.nan
    solver = Reversible(rtol=0, max_steps=2)
    found = solver.solve(f, z0)
    assert solver.undo(f, found.state, 0).z.shape == z0.shape
    with pytest.raises(ValueError, match=r"num_steps=-1.*positive number"):
        solver.undo(f, found.state, -1)
