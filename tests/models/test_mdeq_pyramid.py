"""MDEQ that is fed at every scale: sizes, a solved equilibrium, gradients, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import SolverError, StructureError, UnconvergedWarning
from deqzoo.models import entry
from deqzoo.models.mdeq_pyramid import PyramidCell, PyramidConfig, PyramidMDEQ
from deqzoo.nn import observe_equilibria
from deqzoo.solvers import Anderson, Picard

ONE = PyramidConfig(widths=(4,), stem=3, num_features=5, groups=2)
TWO = PyramidConfig(widths=(4, 6), stem=3, num_features=5, groups=2)
THREE = PyramidConfig(widths=(4, 6, 8), stem=3, num_features=5, stride=1, groups=2)
DEEP = PyramidConfig(widths=(4, 6), stem=3, num_features=5, pooled=True, blocks=2, groups=2)
every_size = pytest.mark.parametrize("config", [ONE, TWO, THREE, DEEP], ids=["one", "two", "three", "deep"])


def images(batch: int = 3, size: int = 16, *, seed: int = 1, dtype=torch.float64) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(config: PyramidConfig, **runtime) -> PyramidMDEQ:
    """A network in float64 and eval mode, whose batch norms know their images and whose map contracts."""
    torch.manual_seed(0)
    net = PyramidMDEQ(config, num_classes=3, **runtime).double()
    with torch.no_grad():
        for gain in net.equilibrium.cell.gains:
            gain.fill_(0.2)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        net.equilibrium.unconverged = "ignore"
        net(images(8))
    return net.eval()


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("mdeq-cifar-tiny", 170_000),
        ("mdeq-cifar-tiny-noaug", 170_000),
        ("mdeq-cifar-deep-tiny", 4_000_000),
        ("mdeq-cifar", 10_000_000),
    ],
)
def test_named_configurations_stay_within_their_sizes(name, limit):
    with torch.device("meta"):
        net = entry(name).build()
    assert 0.6 * limit < sum(p.numel() for p in net.parameters()) <= limit


@every_size
def test_what_comes_out_is_an_equilibrium(config):
    net = network(config, solver=Anderson(rtol=1e-10, max_steps=100))
    x = net.injection(images())
    with observe_equilibria(net) as seen:
        maps = net.forward_maps(images())
    assert bool(seen.converged.all())
    for z, again in zip(maps, net.equilibrium.cell(maps, *x), strict=True):
        torch.testing.assert_close(z, again, rtol=1e-8, atol=1e-8)
    assert [tuple(z.shape[1:]) for z in maps] == [
        (info["num_chs"], 16 // info["reduction"], 16 // info["reduction"]) for info in net.feature_info
    ]


def test_the_map_is_the_one_that_is_described():
    cell = PyramidCell((4, 6), groups=2).double()
    torch.manual_seed(3)
    z = (torch.randn(2, 4, 8, 8).double(), torch.randn(2, 6, 4, 4).double())
    x = tuple(torch.randn_like(part) for part in z)
    a, b = map(F.relu, z)
    fine = F.conv2d(a, cell.expand[0].weight, padding=1)
    fine = fine + F.conv2d(b, cell.cross[0][1].weight).repeat_interleave(2, 2).repeat_interleave(2, 3)
    coarse = F.conv2d(b, cell.expand[1].weight, padding=1)
    coarse = coarse + F.conv2d(a.reshape(2, 4, 4, 2, 4, 2).mean((3, 5)), cell.cross[1][0].weight)
    for i, hidden in enumerate((fine, coarse)):
        branch = F.conv2d(F.relu(F.group_norm(hidden, 2)), cell.reduce[i].weight, padding=1)
        torch.testing.assert_close(cell(z, *x)[i], F.group_norm(x[i] + 0.5 * branch, 2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("blocks", [0, 2])
def test_scales_are_fed_as_described(stride, pooled, blocks):
    net = network(
        PyramidConfig(widths=(4, 6), stem=3, num_features=5, stride=stride, pooled=pooled, blocks=blocks, groups=2)
    )
    x = net.stem(images())
    for inject, part, step in zip(net.inject, net.injection(images()), (stride, 2), strict=True):
        layers = {
            kind: [m for m in inject if type(m).__name__ == kind] for kind in ("Conv2d", "BatchNorm2d", "BasicBlock")
        }
        (taps,), (norm,) = layers["Conv2d"], layers["BatchNorm2d"]
        assert len(layers["BasicBlock"]) == blocks
        x = F.conv2d(F.relu(x), taps.weight, padding=1, stride=1 if pooled else step)
        want = norm(F.max_pool2d(x, step) if pooled else x)
        for block in layers["BasicBlock"]:
            want = F.relu(want)
            want = F.relu(want + block.bn2(block.conv2(F.relu(block.bn1(block.conv1(want))))))
        torch.testing.assert_close(part, want)
        x = part


def test_dropout_is_of_injections_and_pooled_features_in_training():
    net, plain = network(replace(DEEP, dropout=0.5)), network(DEEP)
    plain.load_state_dict(net.state_dict())
    x = images()
    whole = plain.injection(x)
    torch.testing.assert_close(net.injection(x), whole)
    assert torch.all(net.pool(torch.ones(3, 5, 2, 2)) == 1)
    net.dropout.train()
    assert set(net.pool(torch.ones(64, 5, 2, 2)).unique().tolist()) == {0, 2}
    for inject in net.inject:
        inject[-1].train()
    dropped = net.injection(x)
    # The coarser scale is fed by what is left of the finer one.
    kept = dropped[0] != 0
    torch.testing.assert_close(dropped[0][kept], 2 * whole[0][kept])
    assert 0.4 < kept.sum() / (whole[0] != 0).sum() < 0.6
    assert not torch.equal(dropped[1] != 0, whole[1] != 0)


def test_dropout_leaves_the_map_of_a_solve_alone():
    net = network(replace(DEEP, dropout=0.5), solver=Anderson(rtol=1e-10, max_steps=100)).train()
    with observe_equilibria(net) as seen:
        net(images())
    assert bool(seen.converged.all())


@every_size
def test_gradients_are_those_of_a_long_unroll(config):
    gradients = []
    for adjoint in (Implicit(solver=Anderson(rtol=1e-12, max_steps=200)), Unrolled()):
        net = network(config, solver=Picard(rtol=1e-13, max_steps=150), adjoint=adjoint)
        net(images()).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


def test_a_sample_is_alone_in_its_batch():
    net = network(THREE)
    batch = images()
    torch.testing.assert_close(net(batch)[1:2], net(batch[1:2]), rtol=1e-10, atol=1e-12)
    spoilt = batch.clone()
    spoilt[0, 1, 2, 3] = torch.nan
    net.equilibrium.unconverged = "warn"
    with pytest.warns(UnconvergedWarning, match="1 of 3 samples met NaN or inf"):
        logits = net(spoilt)
    assert logits[0].isnan().all()
    torch.testing.assert_close(logits[1:], net(batch)[1:], rtol=1e-10, atol=1e-12)


def test_images_may_be_grey():
    net = PyramidMDEQ(TWO, in_chans=1)
    net.equilibrium.unconverged = "ignore"
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 10)
    with pytest.raises(StructureError, match=r"takes batches of images \(B, 1, H, W\)"):
        net(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("config", [TWO, DEEP], ids=["two", "deep"])
def test_a_single_image_is_a_batch(config, train):
    image = images(1).requires_grad_()
    (gradient,) = torch.autograd.grad(network(config).train(train)(image).sum(), image)
    assert gradient.isfinite().all()


def test_a_solve_that_ends_early_says_so():
    net = network(TWO, solver=Anderson(rtol=1e-10, max_steps=2))
    net.equilibrium.unconverged = "warn"
    with pytest.warns(UnconvergedWarning, match="3 of 3 samples ran out of steps"):
        assert net(images()).isfinite().all()
    net.equilibrium.unconverged = "raise"
    with pytest.raises(SolverError, match="3 of 3 samples"):
        net(images())


def test_more_steps_come_closer():
    net = network(THREE, solver=Picard(rtol=0, max_steps=64))
    best = net(images())
    errors = []
    for budget in (2, 3, 4, 6, 8):
        net.equilibrium.solver = Picard(rtol=0, max_steps=budget)
        errors.append((net(images()) - best).norm().item())
    assert errors == sorted(errors, reverse=True)


def test_sides_are_multiples_of_the_coarsest_stride():
    with pytest.raises(StructureError, match=r"30x24 pixels\. .* covers 4x4.* 32x24 say"):
        network(TWO)(torch.zeros(1, 3, 30, 24, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, "one width per scale"),
        ({"widths": (5,)}, "multiples"),
        ({"stride": 3}, "use 1 or 2"),
        ({"blocks": -1}, "blocks=-1. .* use 0 or more"),
        ({"dropout": 1.0}, r"dropout=1\.0. .* lies in \[0, 1\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PyramidConfig(**{"widths": (4,), "stem": 3, "num_features": 5, "groups": 2, **options})
