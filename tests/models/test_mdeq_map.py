"""MDEQ: the published sizes, map and head."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo.models import entry
from deqzoo.models.mdeq import (
    MDEQConfig,
    MultiscaleCell,
    mdeq_imagenet_large,
    mdeq_imagenet_small,
    mdeq_imagenet_xl,
)
from deqzoo.models.mdeq_parts import MultiscaleHead
from deqzoo.solvers import Picard

from .mdeq_nets import THREE, calls, every_size, images, network

# Without the gains of weight normalisation, which the published counts leave out: of the cell, of all.
PUBLISHED = {
    "mdeq-cifar-tiny-original": (entry("mdeq-cifar-tiny-original").build, 111_456, 158_650),
    "mdeq-cifar-original": (entry("mdeq-cifar-original").build, 8_712_832, 11_095_038),
    "mdeq-imagenet-small": (mdeq_imagenet_small, 8_712_832, 16_805_576),
    "mdeq-imagenet-large": (mdeq_imagenet_large, 54_414_400, 67_055_224),
    "mdeq-imagenet-xl": (mdeq_imagenet_xl, 77_689_392, 90_452_720),
}


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
