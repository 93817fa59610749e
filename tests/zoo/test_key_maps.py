"""State dicts of other projects, in networks of ours of the same architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deqzoo import create_model, load
from deqzoo.errors import WeightsError
from deqzoo.solvers import Anderson, Picard
from deqzoo.zoo.convert import convert
from deqzoo.zoo.foreign import open_foreign
from deqzoo.zoo.key_maps import translated
from deqzoo.zoo.loading import restore

from .foreign_nets import DenseMonotone, LinearPositive, MultiPositive, TinyMultiscale

TIGHT = Picard(rtol=1e-6, max_steps=300)


def saved(net: nn.Module, folder: Path, wrap: str = "") -> Path:
    """Writes a state dict as other projects do, and returns the file."""
    path = folder / "weights.pth"
    torch.save({wrap + key: value for key, value in net.state_dict().items()}, path)
    return path


def images(channels: int, size: int) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("pcdeq-mnist-linear", lambda: LinearPositive(80)),
        ("pcdeq-mnist-multi", lambda: MultiPositive(1, (12, 24, 48), F.softsign)),
        ("pcdeq-cifar-multi", lambda: MultiPositive(3, (100, 120, 140), F.relu6)),
    ],
)
@torch.no_grad()
def test_published_pcdeq_weights_give_the_same_logits(name: str, make: Any, tmp_path: Path):
    theirs = make().eval()
    convert(saved(theirs, tmp_path), tmp_path / "ours", name=name)
    ours: Any = load(tmp_path / "ours", solver=TIGHT)
    x = images(ours.net.in_chans, ours.net.image_size)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_weights_that_break_the_promise_of_a_pcdeq_are_refused(tmp_path: Path):
    theirs = LinearPositive(80)
    theirs.block.deq.f.W.weight_v.data[3, 4] = -0.1  # pyright: ignore
    with pytest.raises(WeightsError, match=r"negative entries in the weights of stages\.0\.equilibrium\.cell\.linear"):
        open_foreign(saved(theirs, tmp_path), "pcdeq-mnist-linear")


@pytest.mark.parametrize(
    ("full", "normed_fusion", "post_affine"),
    [("fullstage", False, False), ("fullstage", False, True), ("full_stage", True, True)],
    ids=["locuslab", "locuslab-affine", "torchdeq"],
)
@torch.no_grad()
def test_published_mdeq_weights_give_the_same_map_and_head(
    full: str, normed_fusion: bool, post_affine: bool, tmp_path: Path
):
    theirs = TinyMultiscale(full, normed_fusion=normed_fusion, post_affine=post_affine).eval()
    path = saved(theirs, tmp_path, wrap="module.")
    ours: Any = restore(open_foreign(path, "mdeq-cifar-tiny-original")).eval()
    u = theirs.downsample(images(3, 32))
    torch.testing.assert_close(ours.inject(ours.stem(images(3, 32))), u)
    z = torch.randn(3, 24, 32, 32), torch.randn(3, 24, 16, 16)
    for mine, other in zip(ours.equilibrium.cell(z, u), theirs.f(z, u), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    # The head: bottlenecks in both, by hand.
    features = [_bottleneck(theirs.incre_modules[i][0], part) for i, part in enumerate(z)]  # pyright: ignore
    gathered = theirs.final_layer(features[1] + theirs.downsamp_modules[0](features[0]))
    torch.testing.assert_close(
        ours.forward_head(ours.head(z)), theirs.classifier(gathered.mean((2, 3))), rtol=1e-4, atol=1e-4
    )


def _bottleneck(block: Any, x: Tensor) -> Tensor:
    y = F.relu(block.bn1(block.conv1(x)))
    y = F.relu(block.bn2(block.conv2(y)))
    return F.relu(block.bn3(block.conv3(y)) + block.downsample(x))


def test_the_names_of_four_scales_are_covered_too(tmp_path: Path):
    """Names as mdeq_core.py makes them, for the large network: 3k and 3k + 1 of each downward path."""
    net: Any = create_model("mdeq-cifar-original")
    own = net.state_dict()
    theirs = {}
    for key, value in own.items():
        if key.startswith("equilibrium.cell.fuse"):
            _, _, _, target, source, layer, part = key.split(".")
            index, kind = divmod(int(layer), 3)
            step = f"{index}." if source < target else ""
            theirs[f"fullstage.fuse_layers.{target}.{source}.net.{step}{('conv', 'gnorm')[kind]}.{part}"] = value
    assert len(theirs) == 3 * sum(
        max(1, target - source) for target in range(4) for source in range(4) if target != source
    )
    found = translated(theirs, net, "here")
    for key, value in found.items():
        assert torch.equal(value, own[key])
    assert {key for key in own if ".fuse." in key} <= found.keys()


@torch.no_grad()
def test_published_dense_mondeq_weights_give_the_same_logits(tmp_path: Path):
    torch.manual_seed(1)
    theirs = DenseMonotone(87, margin=1.0).eval()
    assert sum(p.numel() for p in theirs.parameters()) == 84_313  # as published
    convert(saved(theirs, tmp_path), tmp_path / "ours", name="mondeq-mnist-dense")
    ours: Any = load(tmp_path / "ours", solver=Anderson(rtol=1e-6, max_steps=300))
    assert sum(p.numel() for p in ours.net.parameters()) == 84_313
    torch.testing.assert_close(ours(images(1, 28)), theirs(images(1, 28)), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path):
    path = saved(LinearPositive(60), tmp_path)
    with pytest.raises(WeightsError, match=r"wrong shape: .*\(60,"):
        restore(open_foreign(path, "pcdeq-mnist-linear"))
    with pytest.raises(WeightsError, match=r"does not say which model it belongs to.*--name"):
        convert(path, tmp_path / "ours")
    with pytest.raises(WeightsError, match=r"No other project's layout is known for MonDEQ"):
        open_foreign(path, "mondeq-mnist")
    torch.save({"weights": 3}, path)
    with pytest.raises(WeightsError, match=r"holds no state dict"):
        open_foreign(path, "pcdeq-mnist-linear")
