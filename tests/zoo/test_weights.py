"""Weights are what was published, or they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from deqzoo import load
from deqzoo.errors import WeightsError
from deqzoo.zoo import manifest, save
from deqzoo.zoo.layout import WEIGHTS_FILE
from deqzoo.zoo.tensors import load_tensors, read_tensors, sha256, write_tensors

from .probes import Affine


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["deqzoo"] |= changes
    path.write_text(json.dumps(config))


def weights_of(package: Path) -> Path:
    return package / "weights" / "zoo-probe" / WEIGHTS_FILE


def test_one_changed_bit_is_found(package: Path):
    path = weights_of(package)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"was changed after it was published: its SHA-256 is [0-9a-f]{64}, not"):
        load("zoo-probe")


def test_weights_changed_together_with_their_config_are_found(package: Path, net: Any):
    net.fc.bias.data += 1
    save(net, weights_of(package).parent, name="zoo-probe")
    load(weights_of(package).parent)  # consistent in itself, but not what the manifest pins
    with pytest.raises(WeightsError, match=r"was changed after it was published"):
        load("zoo-probe")


def test_a_truncated_file_is_found(package: Path):
    path = weights_of(package)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=f"is truncated: it has 1,000 of {size:,} bytes"):
        load("zoo-probe")


def test_files_of_the_right_hash_are_still_checked(folder: Path):
    path = folder / WEIGHTS_FILE
    content = path.read_bytes()
    header = json.dumps({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    strange = len(header).to_bytes(8, "little") + header + b"0"  # a dtype that torch does not have
    for damaged in (content[:-10], content[:5], b"?", b"not safetensors at all, but long enough", strange):
        path.write_bytes(damaged)
        edit_config(folder, weights={"sha256": sha256(damaged), "size": len(damaged)})
        with pytest.raises(WeightsError, match=r"no complete safetensors file"):
            load(folder)


def test_missing_files_are_named(package: Path, folder: Path):
    weights_of(package).unlink()
    with pytest.raises(WeightsError, match=r"zoo-probe/model\.safetensors could not be read: No such file"):
        load("zoo-probe")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json could not be read.*A folder of weights has"):
        load(folder)


def test_configs_of_others_are_refused(folder: Path):
    path = folder / "config.json"
    edit_config(folder, schema_version=99)
    with pytest.raises(WeightsError, match=r"schema version 99; deqzoo .* reads version 1"):
        load(folder)
    edit_config(folder, schema_version=1, name="zoo-gone")
    with pytest.raises(WeightsError, match=r"'zoo-gone', a model that this version does not have"):
        load(folder)
    path.write_text('{"architecture": "resnet18"}')
    with pytest.raises(WeightsError, match=r"does not say which model of deqzoo it belongs to"):
        load(folder)
    path.write_text('{"architecture": ')
    with pytest.raises(WeightsError, match=r"is damaged.*It should be JSON"):
        load(folder)


def test_every_tensor_must_fit_and_the_message_names_those_that_do_not():
    net = Affine()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tensors = dict(Affine().state_dict())
    tensors["fc.weight"] = torch.zeros(2, 4)
    tensors["norm.num_batches_tracked"] = torch.zeros(())
    tensors["fc.extra"] = tensors.pop("fc.bias")
    with pytest.raises(WeightsError) as caught:
        load_tensors(net, tensors, "here")
    for part in (
        "The weights in here do not fit Affine",
        "missing: fc.bias",
        "unexpected: fc.extra",
        "wrong shape: fc.weight is (2, 4) and should be (2, 3)",
        "wrong dtype: norm.num_batches_tracked is torch.float32 and should be torch.int64",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_wider_weights_are_not_narrowed_in_silence():
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in Affine().state_dict().items()}
    with pytest.raises(WeightsError, match=r"fc\.bias is torch.float64 and should be torch.float32"):
        load_tensors(Affine(), tensors, "here")


def test_weights_stored_in_half_precision_come_back_in_full(net: Any, tmp_path: Path):
    save(net, tmp_path, name="zoo-probe", half=True)
    stored = safetensors.torch.load_file(tmp_path / WEIGHTS_FILE)
    assert stored["fc.weight"].dtype == torch.float16
    assert stored["stages.0.norm_in.num_batches_tracked"].dtype == torch.int64
    found: Any = load(tmp_path)
    assert found.net.fc.weight.dtype == torch.float32
    assert torch.equal(found.net.fc.weight, net.fc.weight.half().float())


def test_tensors_that_share_memory_are_stored_twice(tmp_path: Path):
    shared = torch.arange(6.0).view(2, 3)
    write_tensors({"a": shared, "b": shared.T, "c": shared[:1]}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    found = read_tensors(tmp_path / "x", digest=sha256(content), size=len(content))
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["b"], shared.T)
    assert torch.equal(found["c"], shared[:1])


def test_weights_that_cannot_be_published_are_refused(net: Any, tmp_path: Path):
    net.fc.bias.data[0] = 1e6
    with pytest.raises(WeightsError, match=r"beyond the range of float16: fc\.bias\. No .*save without `half`"):
        save(net, tmp_path, name="zoo-probe", half=True)
    net.fc.bias.data[0] = torch.nan
    with pytest.raises(WeightsError, match=r"hold NaN or inf.*: fc\.bias\. No .*look at the training"):
        save(net, tmp_path, name="zoo-probe")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_not_loaded(folder: Path, net: Any, value: float):
    path = folder / WEIGHTS_FILE
    state = net.state_dict()
    state["stages.0.norm_in.running_var"][1] = value
    write_tensors(state, path)
    content = path.read_bytes()
    edit_config(folder, weights={"sha256": sha256(content), "size": len(content)})
    with pytest.raises(WeightsError, match=r"hold NaN or inf: stages\.0\.norm_in\.running_var\. .*earlier checkpoint"):
        load(folder)


def test_a_model_with_other_classes_is_saved_as_it_is(tmp_path: Path, net: Any):
    net.reset_classifier(4)
    save(net, tmp_path, name="zoo-probe")
    assert "label_names" not in load(tmp_path).net.pretrained_cfg  # pyright: ignore
    net.pretrained_cfg |= {"num_classes": 4, "label_names": ["a", "b", "c", "d"]}
    save(net, tmp_path, name="zoo-probe")
    found: Any = load(tmp_path)
    assert found.net.num_classes == 4
    assert found.net.pretrained_cfg["label_names"] == ["a", "b", "c", "d"]


def test_every_embedded_file_of_the_package_is_the_one_that_is_pinned():
    folder = Path(manifest.__file__).parent
    names = json.loads((folder / "weights.json").read_text())
    present = {path.name for path in (folder / "weights").glob("*") if path.is_dir()}
    assert present == {name for name, record in names.items() if record["source"] == "embedded"}
    for name in names:
        model: Any = load(name)
        assert model.net.pretrained_cfg["license"]
