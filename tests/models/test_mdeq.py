"""MDEQ: a solved equilibrium, gradients that agree with a long unroll, and what users meet."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import SolverError, StructureError, UnconvergedWarning
from deqzoo.models import entry
from deqzoo.models.mdeq import MDEQ, MDEQConfig, mdeq_imagenet_small
from deqzoo.nn import observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Broyden, Picard

from .mdeq_nets import BUDGET, THREE, TWO, calls, contracting, every_size, images, network


@every_size
@pytest.mark.parametrize("solver", [Anderson(rtol=1e-10, max_steps=200), Broyden(rtol=1e-10, max_steps=200)], ids=str)
def test_the_equilibrium_is_solved(config, solver):
    net = contracting(config)
    set_runtime(net, solver=solver)
    seen_by_cell = calls(net)
    with torch.no_grad(), observe_equilibria(net) as seen:
        scales = net.forward_maps(images(dtype=torch.float64))
    assert seen.converged.all()
    u = seen_by_cell[-1][1]
    again = net.equilibrium.cell(scales, u)
    gap = sum(((a - b) ** 2).flatten(1).sum(1) for a, b in zip(again, scales, strict=True)).sqrt()
    size = sum((a**2).flatten(1).sum(1) for a in again).sqrt()
    assert (gap <= 1e-10 * size).all()
    # The images reach every scale.
    assert all((z[0] - z[1]).abs().max() > 1e-3 for z in scales)


@every_size
def test_implicit_gradients_are_those_of_a_long_unroll(config):
    net = contracting(config)
    x = images(2, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 3, dtype=torch.float64)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad((net(x) * weights).sum(), [x, *net.parameters()]))

    set_runtime(net, adjoint=Implicit(solver=Anderson(rtol=1e-12, max_steps=300)))
    implicit = gradients()
    set_runtime(net, solver=Picard(rtol=0, max_steps=150), adjoint=Unrolled())
    for got, want, (name, _) in zip(implicit, gradients(), [("x", x), *net.named_parameters()], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        assert got.abs().sum() > 0, name


@pytest.fixture
def noisy() -> MDEQ:
    return network(MDEQConfig(channels=(4, 6), head_channels=(2, 3), num_features=5, groups=2, dropout=0.5))


def test_dropout_drops_whole_channels_for_a_whole_solve(noisy):
    seen = calls(noisy)
    noisy(images())
    first = [args[2:] for args in seen]
    assert len(first) > 5
    assert [tuple(m.shape) for m in first[0]] == [(4, 4, 1, 1), (4, 6, 1, 1)]
    assert set(torch.cat([m.flatten() for m in first[0]]).tolist()) == {0.0, 2.0}
    for masks in first:
        assert all(torch.equal(a, b) for a, b in zip(masks, first[0], strict=True))
    seen.clear()
    noisy(images())
    assert not all(torch.equal(a, b) for a, b in zip(seen[0][2:], first[0], strict=True))


def test_there_are_no_masks_without_dropout(noisy):
    for net in (noisy.eval(), network(TWO)):
        seen = calls(net)
        net(images())
        assert {len(args) for args in seen} == {2}


def test_sizes_that_do_not_divide_are_refused_with_sizes_that_do():
    net = network(THREE)
    message = (
        r"^Found images of 30x24 pixels\. A pixel of the coarsest scale covers 8x8, so that height and width "
        r"have to be multiples of 8: resize or pad the images, to 32x24 say\.$"
    )
    with pytest.raises(StructureError, match=message):
        net(torch.randn(1, 3, 30, 24))
    with pytest.raises(StructureError, match="24x32 say"):
        net(torch.randn(1, 3, 24, 25))
    with pytest.raises(StructureError, match="8x16 say"):
        net(torch.randn(1, 3, 0, 16))
    assert net.eval()(torch.randn(1, 3, 32, 24)).shape == (1, 3)


def test_channels_are_checked_and_may_be_grey():
    net = network(TWO, in_chans=1)
    assert net(images(1, 1)).shape == (1, 3)
    with pytest.raises(StructureError, match=r"takes batches of images \(B, 1, H, W\)"):
        net(images())


def test_a_broken_image_breaks_no_other():
    net = contracting(TWO)
    x = images(dtype=torch.float64)
    bad = x.clone()
    bad[1, 0, 3, 3] = torch.nan
    with torch.no_grad():
        good = net(x)
        with pytest.warns(UnconvergedWarning, match="1 of 4 samples met NaN or inf"):
            logits = net(bad)
        assert logits[1].isnan().all()
        torch.testing.assert_close(logits[[0, 2, 3]], good[[0, 2, 3]], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(net(x[2:3]), good[2:3], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_single_image_is_a_batch(train):
    net = contracting(TWO).train(train)
    x = images(1, dtype=torch.float64).requires_grad_()
    logits = net(x)
    assert logits.shape == (1, 3)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.isfinite().all()


def test_a_solve_that_ends_early_says_so_where_it_happened():
    net = contracting(TWO)
    set_runtime(net, max_steps=2)
    x = images(3, dtype=torch.float64)
    with torch.no_grad():
        with pytest.warns(UnconvergedWarning, match="3 of 3 samples"), observe_equilibria(net) as seen:
            assert net(x).isfinite().all()
        assert [name for name, _ in seen.solutions] == ["equilibrium"]
        assert not seen.converged.any()
        net.equilibrium.unconverged = "raise"
        with pytest.raises(SolverError, match="3 of 3 samples"):
            net(x)
        net.equilibrium.unconverged = "ignore"
        assert net(x).isfinite().all()


def test_more_steps_come_closer_to_the_equilibrium():
    net = contracting(THREE)
    x = images(2, dtype=torch.float64)
    net.equilibrium.unconverged = "ignore"
    with torch.no_grad():
        exact = net(x)
        gaps = []
        for budget in (1, 3, 9, 27):
            set_runtime(net, max_steps=budget)
            gaps.append(float((net(x) - exact).norm()))
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3]


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_memory_formats_agree(train):
    net = contracting(THREE).train(train)
    set_runtime(net, solver=BUDGET)
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = images(dtype=torch.float64)
    seen = calls(twin)
    torch.testing.assert_close(twin(x.contiguous(memory_format=torch.channels_last)), net(x), rtol=1e-8, atol=1e-10)
    for args in seen:
        assert all(z.is_contiguous(memory_format=torch.channels_last) for z in (*args[0], args[1]))


def test_the_state_keeps_its_precision_under_autocast():
    net = network(TWO).eval()
    seen = calls(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert net(images()).isfinite().all()
    assert {z.dtype for args in seen for z in args[0]} == {torch.float32}


def test_the_words_of_timm():
    net = contracting(TWO)
    x = images(2, dtype=torch.float64)
    features = net.forward_features(x)
    assert features.shape == (2, 5, 8, 8)
    torch.testing.assert_close(net.forward_head(features), net(x))
    torch.testing.assert_close(net.forward_head(features, pre_logits=True), features.mean((2, 3)))
    net.reset_classifier(7)
    assert net.double()(x).shape == (2, 7)
    net.reset_classifier(0)
    torch.testing.assert_close(net(x), features.mean((2, 3)))
    assert net.num_features == 5


def test_weights_survive_storage_and_copies():
    net = contracting(TWO)
    set_runtime(net, solver=BUDGET)
    x = images(dtype=torch.float64)
    other = network(TWO, seed=5, solver=Anderson(rtol=0, max_steps=3)).double().eval()
    assert not torch.equal(other(x), net(x))
    other.load_state_dict(net.state_dict())
    set_runtime(other, solver=BUDGET)
    assert torch.equal(other(x), net(x))
    twin = copy.deepcopy(net)
    before = net(x)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(0.1)
    assert not torch.equal(twin(x), before)
    assert torch.equal(net(x), before)


def test_training_reduces_the_loss():
    net = network(TWO)
    x, labels = images(8, size=8), torch.arange(8) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert not [name for name, p in net.named_parameters() if torch.equal(p, start[name])]


def test_runtime_is_chosen_by_keyword():
    net = entry("mdeq-cifar-tiny-original").build(num_classes=4, in_chans=1, solver=BUDGET, adjoint=Unrolled())
    assert (net.num_classes, net.in_chans) == (4, 1)
    assert (net.equilibrium.solver, net.equilibrium.adjoint) == (BUDGET, Unrolled())
    with pytest.raises(TypeError, match="depth"):
        entry("mdeq-cifar-tiny-original").build(depth=3)
    with torch.device("meta"):
        assert mdeq_imagenet_small().num_classes == 1000
        assert mdeq_imagenet_small(num_classes=0).num_classes == 0
