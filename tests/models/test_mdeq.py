"""MDEQ: the published sizes and map, a solved equilibrium, and gradients that agree with a long unroll."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.adjoints import Implicit, Unrolled
from deqzoo.errors import SolverError, StructureError, UnconvergedWarning
from deqzoo.models import entry
from deqzoo.models.mdeq import (
    MDEQ,
    MDEQConfig,
    MultiscaleCell,
    mdeq_imagenet_large,
    mdeq_imagenet_small,
    mdeq_imagenet_xl,
)
from deqzoo.models.mdeq_parts import MultiscaleHead
from deqzoo.nn import observe_equilibria, set_runtime
from deqzoo.solvers import Anderson, Broyden, Picard

# Without the gains of weight normalisation, which the published counts leave out: of the cell, of all.
PUBLISHED = {
    "mdeq-cifar-tiny-original": (entry("mdeq-cifar-tiny-original").build, 111_456, 158_650),
    "mdeq-cifar-original": (entry("mdeq-cifar-original").build, 8_712_832, 11_095_038),
    "mdeq-imagenet-small": (mdeq_imagenet_small, 8_712_832, 16_805_576),
    "mdeq-imagenet-large": (mdeq_imagenet_large, 54_414_400, 67_055_224),
    "mdeq-imagenet-xl": (mdeq_imagenet_xl, 77_689_392, 90_452_720),
}
TWO = MDEQConfig(channels=(4, 6), head_channels=(2, 3), num_features=5, expansion=2, groups=2)
THREE = MDEQConfig(channels=(4, 6, 8), head_channels=(2, 3, 2), num_features=5, expansion=2, groups=2, halvings=1)
ONE = MDEQConfig(channels=(4,), head_channels=(2,), num_features=5, expansion=2, groups=2)
every_size = pytest.mark.parametrize("config", [ONE, TWO, THREE], ids=["one", "two", "three"])

BUDGET = Broyden(rtol=0, max_steps=8)


def network(config: MDEQConfig, *, in_chans: int = 3, solver=BUDGET, adjoint=Implicit(solver=BUDGET), seed: int = 0):
    """A network with a fixed budget, which never warns."""
    torch.manual_seed(seed)
    return MDEQ(config, in_chans=in_chans, num_classes=3, solver=solver, adjoint=adjoint)


def contracting(config: MDEQConfig) -> MDEQ:
    """A network in float64 whose map contracts, in eval mode: the blocks say little besides the injection."""
    net = network(config, solver=Anderson(rtol=1e-12, max_steps=200)).double()
    with torch.no_grad():
        for block in net.equilibrium.cell.blocks:
            block.reduce.weight = 0.1 * block.reduce.weight
            block.norm.weight.fill_(0.5)
            block.norm.bias.normal_()
        for post in net.equilibrium.cell.post:
            post[2].weight.fill_(0.1)
            post[2].bias.normal_()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        # What batch norms see here is what they expect in eval mode.
        net(images(8, size=16, dtype=torch.float64))
    return net.eval()


def images(batch: int = 4, channels: int = 3, size: int = 16, *, seed: int = 1, dtype=torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=dtype)


def calls(net: MDEQ) -> list[tuple]:
    """Returns a list that grows by the arguments of every evaluation of the cell."""
    seen: list[tuple] = []
    net.equilibrium.cell.register_forward_pre_hook(lambda module, args: seen.append(args))
    return seen


def state(cell: MultiscaleCell, u: Tensor, seed: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    return tuple(torch.randn_like(z) for z in cell.initial_state(u))


def reference(cell: MultiscaleCell, z: tuple[Tensor, ...], u: Tensor, masks: tuple[Tensor, ...], groups: int):
    """The published map, written out: blocks, sums over all scales, what follows the sums."""

    def norm(x: Tensor, layer: nn.GroupNorm, groups: int) -> Tensor:
        return F.group_norm(x, groups, layer.weight, layer.bias)

    blocks = []
    for i, (block, part) in enumerate(zip(cell.blocks, z, strict=True)):
        y = F.relu(norm(F.conv2d(part, block.expand[0].weight, padding=1), block.expand[1], groups))
        y = F.conv2d(y, block.reduce.weight, padding=1)
        if masks:
            y = y * masks[i]
        if i == 0:
            y = y + u
        y = F.relu(norm(y, block.norm, groups) + part)
        blocks.append(norm(y, block.finish[1], groups))
    if len(blocks) == 1:
        return tuple(blocks)
    out = []
    for i in range(len(z)):
        total = blocks[i]
        for j, block in enumerate(blocks):
            if j == i:
                continue
            layers = cell.fuse[i][j]
            if j > i:
                y = norm(F.conv2d(block, layers[0].weight), layers[1], groups)
                total = total + y.repeat_interleave(2 ** (j - i), 2).repeat_interleave(2 ** (j - i), 3)
                continue
            for k in range(i - j):
                y = F.relu(y) if k else block
                y = norm(F.conv2d(y, layers[3 * k].weight, stride=2, padding=1), layers[3 * k + 1], groups)
            total = total + y
        post = cell.post[i]
        out.append(norm(F.conv2d(F.relu(total), post[1].weight), post[2], groups // 2))
    return tuple(out)


@pytest.mark.parametrize(("build", "in_cell", "in_all"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_networks_have_their_published_number_of_parameters(build, in_cell, in_all):
    with torch.device("meta"):
        net = build()

    def count(module: nn.Module) -> int:
        # Directions have the size of the weights; the gains come on top.
        return sum(p.numel() for name, p in module.named_parameters() if not name.endswith("weight.original0"))

    assert count(net.equilibrium.cell) == in_cell
    assert count(net) == in_all


def test_only_blocks_and_what_follows_fusion_have_gains():
    net = network(THREE)
    gains = {
        n.removesuffix(".parametrizations.weight.original0") for n, _ in net.named_parameters() if "original0" in n
    }
    expected = {f"blocks.{i}.{part}" for i in range(3) for part in ("expand.0", "reduce")}
    expected |= {f"post.{i}.1" for i in range(3)}
    assert gains == {f"equilibrium.cell.{name}" for name in expected}


@every_size
@pytest.mark.parametrize("dropout", [False, True])
def test_the_map_is_the_published_one(config, dropout):
    net = network(config).double()
    cell = net.equilibrium.cell
    with torch.no_grad():
        for p in cell.parameters():
            if p.ndim == 1:
                p.normal_()
    u = images(2, 4, 8, dtype=torch.float64)
    z = state(cell, u)
    masks = tuple(2 * torch.rand(2, c, 1, 1).round().double() for c in config.channels) if dropout else ()
    for got, want in zip(cell(z, u, *masks), reference(cell, z, u, masks, config.groups), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["mdeq-cifar-tiny-original", "mdeq-cifar-original"])
def test_each_scale_has_half_the_size_of_the_one_before(name):
    net = entry(name).build(solver=Picard(rtol=0, max_steps=2))
    with torch.no_grad():
        scales = net.eval().forward_maps(images(1, size=16))
    sizes = [(1, c, 16 >> i, 16 >> i) for i, c in enumerate(net.config.channels)]
    assert [tuple(z.shape) for z in scales] == sizes


def test_the_stem_halves_as_often_as_it_is_told():
    net = network(THREE).eval()
    with torch.no_grad():
        assert [z.shape[2] for z in net.forward_maps(images(1, size=24))] == [12, 6, 3]
        assert net.forward_features(images(1, size=24)).shape == (1, 5, 3, 3)


@pytest.mark.parametrize(
    ("changes", "direct"), [({}, True), ({"halvings": 1}, False), ({"channels": (4, 6, 8)}, False)]
)
def test_only_small_networks_inject_what_the_stem_gives(changes, direct):
    sizes = {"channels": (4, 6), "groups": 2, **changes}
    config = MDEQConfig(head_channels=(2,) * len(sizes["channels"]), num_features=5, **sizes)
    net = network(config).eval()
    seen = calls(net)
    x = images()
    with torch.no_grad():
        net(x)
        found = net.stem(x)
        if not direct:
            conv, norm, _ = net.inject
            found = F.relu(norm(F.conv2d(found, conv.weight)))
        assert torch.equal(seen[0][1], found)


def test_the_head_is_the_published_one():
    torch.manual_seed(0)
    head = MultiscaleHead((4, 6, 8), (2, 3, 2), 5).double()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    scales = tuple(torch.randn(2, c, 8 >> i, 8 >> i, dtype=torch.float64) for i, c in enumerate((4, 6, 8)))

    def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)

    def widened(i: int) -> Tensor:
        first, norm1, _, second, norm2, _, third, norm3 = head.widen[i].layers
        y = F.relu(norm(F.conv2d(scales[i], first.weight), norm1))
        y = F.relu(norm(F.conv2d(y, second.weight, padding=1), norm2))
        y = norm(F.conv2d(y, third.weight), norm3)
        if i == 2:  # 8 channels are four times 2 already
            return F.relu(y + scales[i])
        shortcut, norm4 = head.widen[i].shortcut
        return F.relu(y + norm(F.conv2d(scales[i], shortcut.weight), norm4))

    y = widened(0)
    for i, (conv, norm5, _) in enumerate(head.halve):
        y = widened(i + 1) + F.relu(norm(F.conv2d(y, conv.weight, conv.bias, stride=2, padding=1), norm5))
    conv, norm6, _ = head.final
    torch.testing.assert_close(head(scales), F.relu(norm(F.conv2d(y, conv.weight, conv.bias), norm6)))


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_channels": (2,)}, "as many of the one as of the other"),
        ({"channels": (), "head_channels": ()}, "as many of the one as of the other"),
        ({"channels": (4, 7)}, "multiples of it"),
        ({"groups": 1}, "an even number of groups"),
        ({"halvings": 3}, "use 0 to 2"),
    ],
)
def test_sizes_that_make_no_network_are_refused(changes, message):
    sizes = {"channels": (4, 6), "head_channels": (2, 3), "num_features": 5, "groups": 2}
    with pytest.raises(ValueError, match=message):
        MDEQConfig(**{**sizes, **changes})
