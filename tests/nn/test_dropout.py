"""Dropout masks that are constant in a solve."""

import pytest
import torch
from torch import Tensor, nn

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import SolverError
from deqzoo.nn import ImplicitModule, VariationalDropout
from deqzoo.solvers import Anderson, Picard

from .cells import TanhCell, inputs, linear


class DropoutNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = VariationalDropout(0.5)
        self.masks: list[Tensor] = []
        cell = TanhCell(linear(), 6)
        cell.register_forward_pre_hook(lambda _, args: self.masks.append(args[2]))
        exact = Implicit(solver=Anderson(rtol=1e-12))
        self.equilibrium = ImplicitModule(cell, solver=Anderson(rtol=1e-10), adjoint=exact)

    def forward(self, x: Tensor) -> Tensor:
        return self.equilibrium(x, self.dropout.draw(x))


@pytest.fixture
def net() -> DropoutNet:
    torch.manual_seed(0)
    return DropoutNet()


def test_the_mask_is_constant_in_a_solve_and_new_in_the_next(net):
    net(inputs())
    first, net.masks = net.masks, []
    net(inputs())
    assert len(first) > 3
    assert all(torch.equal(mask, first[0]) for mask in first)
    assert all(torch.equal(mask, net.masks[0]) for mask in net.masks)
    assert not torch.equal(first[0], net.masks[0])


def test_dropped_features_are_zero_in_the_equilibrium(net):
    z = net(inputs())
    assert torch.equal(z == 0, net.masks[0] == 0)


def test_the_gradient_is_that_of_the_unrolled_solve_with_the_same_mask(net):
    x, mask = inputs().requires_grad_(), VariationalDropout(0.5).draw(inputs())
    wanted = (x, *net.equilibrium.parameters())
    got = torch.autograd.grad(net.equilibrium(x, mask).square().sum(), wanted)
    net.equilibrium.solver, net.equilibrium.adjoint = Picard(rtol=1e-14, max_steps=500), Unrolled()
    truth = torch.autograd.grad(net.equilibrium(x, mask).square().sum(), wanted)
    for a, b in zip(got, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_two_solves_before_one_backward_keep_their_masks(net):
    x = inputs()
    parameters = list(net.parameters())
    torch.manual_seed(5)
    separate = [torch.autograd.grad(net(x).square().sum(), parameters) for _ in range(2)]
    torch.manual_seed(5)
    together = torch.autograd.grad(net(x).square().sum() + net(x).square().sum(), parameters)
    assert not torch.equal(separate[0][0], separate[1][0])
    for a, b, both in zip(*separate, together, strict=True):
        torch.testing.assert_close(a + b, both)


@pytest.mark.parametrize(
    ("like", "shared", "shape"),
    [((8, 16, 3, 3), (2, 3), (8, 16, 1, 1)), ((8, 5, 32), (1,), (8, 1, 32)), ((8, 32), (), (8, 32))],
)
def test_masks_keep_the_mean(like, shared, shape):
    torch.manual_seed(0)
    dropout = VariationalDropout(0.25, shared=shared)
    mask = dropout.draw(torch.empty(like, dtype=torch.float64, requires_grad=True))
    assert mask.shape == shape and mask.dtype == torch.float64 and not mask.requires_grad
    assert set(mask.flatten().tolist()) == {0.0, 1 / 0.75}
    many = torch.stack([dropout.draw(torch.empty(like)) for _ in range(200)])
    error = 3 * (0.25 / 0.75 / many.numel()) ** 0.5
    assert abs(float(many.mean()) - 1) < error


def test_eval_mode_and_zero_probability_give_ones():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(VariationalDropout(0.9, shared=(2, 3)).eval().draw(x), torch.ones(2, 3, 1, 1))
    assert torch.equal(VariationalDropout(0).draw(x), torch.ones_like(x))


def test_a_generator_decides_the_mask():
    draws = [VariationalDropout(0.5).draw(inputs(), generator=torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_nothing_is_left_on_the_module():
    dropout = VariationalDropout(0.5)
    before = dict(vars(dropout))
    dropout.draw(inputs())
    assert vars(dropout) == before and not dropout.state_dict()


def test_a_call_like_a_layer_is_refused():
    with pytest.raises(SolverError, match="drawn before the solve"):
        VariationalDropout(0.5)(inputs())


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_refuses_impossible_probabilities(p):
    with pytest.raises(ValueError, match=r"lies in \[0, 1\)"):
        VariationalDropout(p)


@pytest.mark.parametrize("shared", [(0,), (-1,)])
def test_refuses_to_share_a_mask_between_samples(shared):
    with pytest.raises(ValueError, match="Samples have masks of their own"):
        VariationalDropout(0.5, shared=shared)
