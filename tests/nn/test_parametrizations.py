"""Constraints that hold by construction, in every evaluation of a solve."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deqzoo.adjoints import Implicit, OneStep, Phantom, Unrolled
from deqzoo.errors import AdjointError
from deqzoo.nn import ImplicitModule, NonNegative, nonnegative, spectral_normed, weight_normed
from deqzoo.solvers import Anderson, Picard

from .cells import TanhCell, inputs, linear

NORMED = {"nonnegative": nonnegative, "spectral": lambda m: spectral_normed(m, 0.7), "weight": weight_normed}
every_parametrisation = pytest.mark.parametrize("parametrise", NORMED.values(), ids=NORMED)


def equilibrium(parametrise, **runtime) -> ImplicitModule:
    layer = parametrise(linear(gain=0.4))
    runtime = {"solver": Anderson(rtol=1e-10), "adjoint": Implicit(solver=Anderson(rtol=1e-12))} | runtime
    return ImplicitModule(TanhCell(layer, 6), **runtime)


entries = st.one_of(st.just(0.0), st.floats(2**-20, 2**20, width=32), st.floats(-(2**20), -(2**-20), width=32))


class TestNonNegative:
    @settings(deadline=None, max_examples=200)
    @given(v=st.lists(entries, min_size=6, max_size=6), g=st.lists(entries, min_size=2, max_size=2))
    def test_no_v_and_g_make_a_weight_negative(self, v, g):
        v, g = torch.tensor(v).reshape(2, 3), torch.tensor(g).reshape(2, 1)
        weight = NonNegative()(v, g)
        assert (weight >= 0).all() and weight.isfinite().all()
        rows = torch.where((v == 0).all(1), 0, g[:, 0].abs())
        torch.testing.assert_close(weight.norm(dim=1), rows)

    def test_keeps_a_nonnegative_weight(self):
        weight = linear().weight.detach().abs()
        layer = linear()
        layer.weight.data = weight.clone()
        torch.testing.assert_close(nonnegative(layer).weight, weight)

    def test_a_gain_sets_every_row_norm(self):
        norms = nonnegative(linear(), gain=0.3).weight.norm(dim=1)
        torch.testing.assert_close(norms, torch.full((6,), 0.3, dtype=torch.float64))

    def test_the_gradient_agrees_with_finite_differences(self):
        v, g = inputs(2, 3).requires_grad_(), inputs(2, 1, seed=4).requires_grad_()
        assert torch.autograd.gradcheck(NonNegative(), (v, g))

    def test_stays_nonnegative_in_training(self):
        net = equilibrium(nonnegative)
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        for _ in range(5):
            optimizer.zero_grad()
            (net(inputs()) + 1).square().sum().backward()
            optimizer.step()
            assert (net.cell.layer.weight >= 0).all()

    def test_a_row_of_zeros_has_a_finite_gradient(self):
        v, g = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 1, requires_grad=True)
        (100 * NonNegative()(v, g)).sum().backward()
        assert v.grad.isfinite().all() and g.grad.isfinite().all()

    @pytest.mark.parametrize("size", [1e-25, 1e25])
    def test_rows_of_any_size_have_the_norm_g(self, size):
        weight = NonNegative()(torch.full((1, 4), size), torch.ones(1, 1))
        torch.testing.assert_close(weight, torch.full((1, 4), 0.5))


class TestSpectral:
    @pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3), (4, 3, 3, 3)])
    @pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
    def test_the_norm_is_the_bound(self, shape, size):
        layer = nn.Module()
        layer.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * size)
        for mode in (True, False):
            weight = spectral_normed(copy.deepcopy(layer).train(mode), 0.9).weight
            torch.testing.assert_close(torch.linalg.matrix_norm(weight.flatten(1), 2), torch.tensor(0.9))
            torch.testing.assert_close(weight / weight.norm(), layer.weight / size / (layer.weight / size).norm())

    def test_the_gradient_agrees_with_finite_differences(self):
        layer = spectral_normed(linear(4))
        original = layer.parametrizations.weight.original
        assert torch.autograd.gradcheck(layer.parametrizations.weight[0], (original,))
        assert torch.autograd.gradgradcheck(layer.parametrizations.weight[0], (original,))

    def test_autocast_and_half_precision_keep_their_dtype_and_the_norm(self):
        layer = spectral_normed(nn.Linear(64, 64))
        want = layer.weight
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer.weight, want)
        assert spectral_normed(nn.Linear(8, 8, dtype=torch.bfloat16)).weight.dtype == torch.bfloat16

    def test_refuses_zero_and_wrong_bounds(self):
        layer = nn.Linear(3, 3)
        nn.init.zeros_(layer.weight)
        with pytest.raises(ValueError, match="zero everywhere"):
            spectral_normed(layer)
        with pytest.raises(ValueError, match=r"bound=0"):
            spectral_normed(nn.Linear(3, 3), 0)


class TestWeightNorm:
    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_one_norm_per_slice(self, dim):
        layer = nn.Conv2d(3, 4, 3)
        before = layer.weight.detach().clone()
        weight_normed(layer, dim)
        torch.testing.assert_close(layer.weight, before)
        with torch.no_grad():
            layer.parametrizations.weight.original0.fill_(2)
        norms = torch.linalg.vector_norm(layer.weight, dim=[d for d in range(4) if d != dim % 4])
        torch.testing.assert_close(norms, torch.full_like(norms, 2))

    def test_refuses_a_slice_without_direction(self):
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight[1] = 0
        with pytest.raises(ValueError, match=r"1 of 2 slices of the weight of Linear along dimension 0 are zero"):
            weight_normed(layer)


@every_parametrisation
class TestInASolve:
    def test_every_evaluation_and_the_graph_see_the_same_weight(self, parametrise):
        net = equilibrium(parametrise).train()
        seen: list[Tensor] = []
        net.cell.register_forward_pre_hook(lambda cell, _: seen.append(cell.layer.weight.detach().clone()))
        for _ in range(3):
            net(inputs()).sum().backward()
        assert len(seen) > 9
        assert all(torch.equal(weight, seen[0]) for weight in seen)

    def test_the_weight_is_computed_once_per_solve_and_once_for_the_graph(self, parametrise):
        net = equilibrium(parametrise)
        calls: list[int] = []
        net.cell.layer.parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
        z = net(inputs())
        assert len(calls) == 2
        z.sum().backward()
        assert len(calls) == 2
        with torch.no_grad():
            net(inputs())
        assert len(calls) == 3

    @pytest.mark.parametrize("adjoint", [Implicit(), OneStep(), Phantom(steps=3), Unrolled()], ids=str)
    def test_training_moves_every_parameter(self, parametrise, adjoint):
        net = equilibrium(parametrise, solver=Picard(rtol=1e-6, max_steps=200), adjoint=adjoint)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        weight = net.cell.layer.weight.detach().clone()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net(inputs()).square().sum().backward()
        optimizer.step()
        assert {name for name, p in net.named_parameters() if torch.equal(p, before[name])} == set()
        assert not torch.allclose(net.cell.layer.weight, weight)

    def test_the_gradient_is_that_of_the_unrolled_solve(self, parametrise):
        net = equilibrium(parametrise)
        parameters = list(net.parameters())
        got = torch.autograd.grad(net(inputs()).square().sum(), parameters)
        net.solver, net.adjoint = Picard(rtol=1e-14, max_steps=2000), Unrolled()
        truth = torch.autograd.grad(net(inputs()).square().sum(), parameters)
        for a, b in zip(got, truth, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)

    def test_an_outer_cache_is_refused_in_training_only(self, parametrise):
        net = equilibrium(parametrise)
        with torch.nn.utils.parametrize.cached():
            with pytest.raises(AdjointError, match="training would silently stop"):
                net(inputs())
            with torch.no_grad():
                inside = net(inputs())
        torch.testing.assert_close(inside, net(inputs()))


@every_parametrisation
class TestCopies:
    def test_a_deepcopy_is_equal_and_independent(self, parametrise):
        net = equilibrium(parametrise)
        want = net(inputs())
        twin = copy.deepcopy(net)
        assert torch.equal(twin(inputs()), want)
        with torch.no_grad():
            for p in twin.parameters():
                p.mul_(0.9)
        assert not torch.equal(twin(inputs()), want)
        assert torch.equal(net(inputs()), want)

    def test_the_state_dict_travels_through_safetensors(self, parametrise, tmp_path):
        net, other = equilibrium(parametrise), equilibrium(parametrise)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.arange(p.numel(), dtype=p.dtype).reshape(p.shape).sin())
        assert not torch.equal(other(inputs()), net(inputs()))
        save_file(net.state_dict(), tmp_path / "net.safetensors")
        other.load_state_dict(load_file(tmp_path / "net.safetensors"))
        assert torch.equal(other(inputs()), net(inputs()))

    def test_torch_compile_gives_the_same(self, parametrise):
        layer = parametrise(linear())
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(inputs()), layer(inputs()))

    def test_pickle_is_refused_by_torch_itself(self, parametrise):
        with pytest.raises(RuntimeError, match="only supported through state_dict"):
            pickle.dumps(equilibrium(parametrise))
