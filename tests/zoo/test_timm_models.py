"""The zoo under timm's roof."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import deqzoo
from deqzoo.adjoints import Unrolled
from deqzoo.errors import StructureError, WeightsError
from deqzoo.models import INPUT_SPECS, entries
from deqzoo.solvers import Picard
from deqzoo.zoo import save

SMALL = [
    e.name.replace("-", "_")
    for e in entries()
    if e.dataset in INPUT_SPECS and e.dataset != "imagenet-1k" and "probe" not in e.name
]
PYRAMIDS = {
    "mdeq_cifar_tiny_original": ([24, 24], [1, 2]),
    "mdeq_cifar_original": ([32, 64, 128, 256], [1, 2, 4, 8]),
    "mdeq_cifar_tiny": ([32, 48], [2, 4]),
    "pcdeq_mnist": ([16, 28, 64], [1, 2, 4]),
    "resnet20_cifar": ([16, 32, 64], [1, 2, 4]),
}


def build(name: str, **options: Any) -> Any:
    """A model with a small budget, where it has one."""
    explicit = name.startswith("resnet")
    return timm.create_model(name, **({} if explicit else {"max_steps": 2}), **options).eval()


def images(net: Any, batch: int = 2) -> Tensor:
    return torch.randn(batch, *net.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))


def test_every_model_of_images_is_there_in_either_order_of_imports():
    code = "import {}, {}; import timm; print(sorted(timm.list_models('*deq*') + timm.list_models('resnet*_cifar')))"
    lists = [
        subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", code.format(*order)],
            capture_output=True, text=True, check=True,
        ).stdout
        for order in (("deqzoo", "timm"), ("timm", "deqzoo"))
    ]  # fmt: skip
    assert lists[0] == lists[1]
    assert "'mdeq_imagenet_xl'" in lists[0]
    assert "'resnet20_cifar'" in lists[0]
    for entry in entries():
        # Names that tests register come too late.
        assert entry.dataset not in INPUT_SPECS or "probe" in entry.name or timm.is_model(entry.name.replace("-", "_"))


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
@pytest.mark.parametrize("name", SMALL)
def test_every_model_speaks_timm(name: str):
    net = build(name, num_classes=3)
    groups = create_optimizer_v2(net, "adamw", lr=1e-3, layer_decay=0.5).param_groups
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(set(scales.values())) > 1
    # What meets the images first is not trained as fast as the head.
    first = net.get_submodule(net.pretrained_cfg["first_conv"])
    assert {scales[id(p)] for p in first.parameters()} == {min(scales.values())}
    x = images(net)
    with torch.no_grad():
        logits = net(x)
        assert logits.shape == (2, 3)
        for info, maps in zip(net.feature_info, net.forward_maps(x), strict=bool(net.feature_info)):
            assert maps.shape[1] == info["num_chs"]
            # Published pcDEQs lose a row and a column to convolutions without padding.
            assert abs(maps.shape[2] - x.shape[2] / info["reduction"]) <= 1
        features = net.forward_features(x)
        assert torch.equal(net.forward_head(features), logits)
        pooled = net.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, net.num_features)
        assert torch.equal(net.get_classifier()(pooled), logits)
        net.reset_classifier(0)
        assert torch.equal(net(x), pooled)
    cfg = net.pretrained_cfg
    assert (cfg["num_classes"], cfg["architecture"], "label_names" in cfg) == (3, name, False)
    assert isinstance(net.get_submodule(cfg["first_conv"]), nn.Conv2d | nn.Linear)
    config = resolve_model_data_config(net)
    spec = INPUT_SPECS[cfg["tag"]]
    assert tuple(config["input_size"]) == (spec.channels, *spec.size)
    assert (tuple(config["mean"]), tuple(config["std"])) == (spec.mean, spec.std)
    net.set_grad_checkpointing()


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")
@pytest.mark.parametrize("name", PYRAMIDS)
def test_features_only_gives_the_maps(name: str):
    channels, reductions = PYRAMIDS[name]
    whole = build(name)
    backbone = build(name, features_only=True)
    backbone.model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in backbone.model.state_dict()})
    assert (backbone.feature_info.channels(), backbone.feature_info.reduction()) == (channels, reductions)
    x = images(whole, 1)
    with torch.no_grad():
        features, maps = whole.forward_intermediates(x)
        assert torch.equal(features, whole.forward_features(x))
        for a, b, width, reduction in zip(backbone(x), maps, channels, reductions, strict=True):
            assert torch.equal(a, b)
            assert tuple(a.shape) == (1, width, x.shape[2] // reduction, x.shape[3] // reduction)
        assert [m.shape for m in whole.forward_intermediates(x, indices=1, intermediates_only=True)] == [maps[-1].shape]
        chosen = build(name, features_only=True, out_indices=(0, -1))
        assert chosen.feature_info.channels() == [channels[0], channels[-1]]
        assert [m.shape for m in chosen(x)] == [maps[0].shape, maps[-1].shape]
    # Neither the head nor what gathers scales is needed for the maps.
    assert not any(n.startswith(("model.fc", "model.head")) for n, _ in backbone.named_parameters())


def test_maps_that_are_not_there():
    vectors = timm.create_model("pcdeq_mnist_linear")
    with pytest.raises(StructureError, match="computes vectors and has no intermediate maps"):
        vectors.forward_intermediates(torch.zeros(1, 1, 28, 28))
    net = build("mdeq_cifar_tiny_original")
    for indices in ((2,), (-3,), 3, 0, ()):
        with pytest.raises(StructureError, match="They count from 0 to 1"):
            net.forward_intermediates(torch.zeros(1, 3, 8, 8), indices=indices)
    with pytest.raises(StructureError, match="output_fmt='NLC'"):
        net.forward_intermediates(torch.zeros(1, 3, 8, 8), output_fmt="NLC")
    with pytest.raises(StructureError, match=r"one image becomes one by `x\[None\]`"):
        net.forward_intermediates(torch.zeros(3, 8, 8))


def test_layers_learn_at_rates_of_their_own():
    net: Any = timm.create_model("mdeq_cifar_original")
    groups = create_optimizer_v2(net, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5).param_groups
    rate = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    parameters = dict(net.named_parameters())
    assert rate[id(parameters["stem.0.weight"])] == rate[id(parameters["inject.0.weight"])] == 0.125
    gains = "equilibrium.cell.blocks.0.reduce.parametrizations.weight.original0"
    assert rate[id(parameters[gains])] == 0.25
    assert rate[id(parameters["head.final.0.weight"])] == 0.5
    assert rate[id(parameters["fc.weight"])] == 1
    # Gains of weights have four dimensions but are vectors.
    assert decay[id(parameters[gains])] == 0
    assert decay[id(parameters[gains.replace("original0", "original1")])] == 0.05


def test_pretrained_weights_are_those_of_the_zoo():
    assert {"pcdeq_mnist.mnist", "pcdeq_mnist_linear.mnist"} <= set(timm.list_models("pcdeq*", pretrained=True))
    net: Any = timm.create_model("pcdeq_mnist", pretrained=True).eval()
    ours: Any = deqzoo.load("pcdeq-mnist").net
    x = images(net)
    with torch.no_grad():
        assert torch.equal(net(x), ours(x))
    assert net.pretrained_cfg["label_names"] == ours.pretrained_cfg["label_names"]
    transform: Any = create_transform(**resolve_model_data_config(net))
    assert len(transform.transforms) > 1
    rgb: Any = timm.create_model("pcdeq_mnist.mnist", pretrained=True, num_classes=4, in_chans=3).eval()
    assert resolve_model_data_config(rgb)["input_size"][0] == 3
    with torch.no_grad():
        # The same grey image in three channels gives the same features.
        torch.testing.assert_close(
            rgb.forward_features(x.expand(-1, 3, -1, -1)), net.forward_features(x), rtol=1e-3, atol=1e-3
        )
    with pytest.raises(WeightsError, match="No pretrained weights exist for 'mdeq-cifar-original'"):
        timm.create_model("mdeq_cifar_original", pretrained=True)


def test_folders_of_weights_are_checked(tmp_path: Path):
    net: Any = deqzoo.create_model("pcdeq-mnist-linear", num_classes=4)
    save(net, tmp_path, name="pcdeq-mnist-linear")
    again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    assert again.num_classes == 4
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="was changed after it was published"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


def test_weights_of_timms_own_kind_are_left_to_timm(tmp_path: Path):
    net: Any = deqzoo.create_model("pcdeq-mnist-linear")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth")}
    same: Any = timm.create_model("pcdeq_mnist_linear", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(same.fc.weight, net.fc.weight)
    fewer: Any = timm.create_model("pcdeq_mnist_linear", pretrained=True, num_classes=2, pretrained_cfg_overlay=overlay)
    assert fewer.fc.weight.shape == (2, 80)
    assert torch.equal(fewer.stages[0].entry.weight, net.stages[0].entry.weight)


def test_solvers_are_chosen_by_keyword():
    net: Any = timm.create_model("mdeq_cifar_tiny_original", solver=Picard(rtol=1e-2), max_steps=7, adjoint=Unrolled())
    assert net.equilibrium.solver == Picard(rtol=1e-2, max_steps=7)
    with pytest.raises(StructureError, match=r"kept by adjoint=Unrolled\(\)"):
        net.set_grad_checkpointing()
    net.set_grad_checkpointing(False)
    with pytest.raises(TypeError, match="depth"):
        timm.create_model("mdeq_cifar_tiny_original", depth=3)
    with pytest.raises(StructureError, match="averages its maps and has no such dropout"):
        timm.create_model("mdeq_cifar_tiny_original", drop_path_rate=0.1)
    assert timm.create_model("pcdeq_mnist_linear", img_size=28).num_classes == 10
    with pytest.raises(StructureError, match="is made for images of"):
        timm.create_model("pcdeq_mnist_linear", img_size=32)
    assert timm.create_model("mdeq_cifar_tiny_original", img_size=64).num_classes == 10
