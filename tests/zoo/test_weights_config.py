"""A config.json may come from anyone: whatever it says, it loads, or is refused with an error that says why."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deqzoo import load
from deqzoo.errors import WeightsError
from deqzoo.zoo import loading
from deqzoo.zoo.weights_config import WeightsConfig, read_config

from .conftest import RESULTS

GONE = object()


def edit(folder: Path, *changes: tuple[str, Any]) -> None:
    """Sets values of config.json under keys joined by dots; GONE takes them away."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes:
        *outer, last = key.split(".")
        block = config
        for name in outer:
            block = block[name]
        if value is GONE:
            del block[last]
        else:
            block[last] = value
    path.write_text(json.dumps(config))


def test_what_was_saved_is_read(folder: Path, net: Any):
    found = read_config(folder)
    assert found == WeightsConfig(
        name="zoo-probe",
        num_classes=10,
        in_chans=1,
        pretrained_cfg=net.pretrained_cfg,
        sha256=found.sha256,
        size=(folder / "model.safetensors").stat().st_size,
        results=RESULTS,
    )


CFG = "pretrained_cfg"
MALFORMED = [
    ("deqzoo.weights", 3, r"weights is 3\. It should be an object with sha256 and size"),
    ("deqzoo.weights", GONE, r"weights is None"),
    ("deqzoo.weights", {}, r"sha256 is None\. It should be 64 hexadecimal digits"),
    ("deqzoo.weights.sha256", "0" * 63, r"sha256 is '0+"),
    ("deqzoo.weights.sha256", GONE, r"sha256 is None"),
    ("deqzoo.weights.size", "many", r"size is 'many'\. It should be the length"),
    ("deqzoo.weights.size", -1, r"size is -1"),
    ("deqzoo.results", [1], r"results is \[1\]"),
    ("deqzoo.results", {"accuracy": [1]}, r"results is"),
    ("deqzoo.name", ["zoo-probe"], r"does not say which model"),
    ("deqzoo", [1], r"does not say which model"),
    ("deqzoo.schema_version", [1], r"schema version \[1\]"),
    ("num_classes", "ten", r"num_classes is 'ten'\. It should be a whole number from 0 to 1,000,000"),
    ("num_classes", GONE, r"num_classes is None"),
    ("num_classes", True, r"num_classes is True"),
    ("num_classes", -1, r"num_classes is -1"),
    ("num_classes", 10**12, r"num_classes is 1000000000000"),
    (CFG, [1, 28, 28], r"pretrained_cfg is \[1, 28, 28\]\. It should be an object"),
    (CFG, "cfg", r"pretrained_cfg is 'cfg'"),
    *((f"{CFG}.{key}", GONE, rf"{key} is None") for key in ("input_size", "mean", "std", "tag", "first_conv")),
    (f"{CFG}.classifier", GONE, r"classifier is None\. It should be a text"),
    (f"{CFG}.first_conv", 7, r"first_conv is 7"),
    (
        f"{CFG}.input_size",
        28,
        r"input_size is 28\. It should be \[channels, height, width\] up to \[1024, 4096, 4096\]",
    ),
    (f"{CFG}.input_size", [1, 28], r"input_size is \[1, 28\]"),
    (f"{CFG}.input_size", [10**9, 28, 28], r"input_size is \[1000000000, 28, 28\]"),
    (f"{CFG}.input_size", [1, 10**9, 28], r"input_size is \[1, 1000000000, 28\]"),
    (f"{CFG}.input_size", [1, 28.0, 28], r"input_size is \[1, 28\.0, 28\]"),
    (f"{CFG}.mean", 0.5, r"mean is 0\.5\. It should be 1 finite number\(s\), one for each channel"),
    (f"{CFG}.mean", [0.5, 0.5], r"mean is \[0\.5, 0\.5\]"),
    (f"{CFG}.mean", [float("nan")], r"mean is \[nan\]"),
    (f"{CFG}.mean", [10**400], r"mean is"),
    (f"{CFG}.std", [0.0], r"std is \[0\.0\]\. It should be 1 positive"),
    (f"{CFG}.num_classes", 11, r"num_classes is 11\. It should be num_classes of the whole, 10"),
    (f"{CFG}.label_names", ["a"], r"label_names is \['a'\]\. It should be a list of 10 texts"),
    (f"{CFG}.label_names", list(range(10)), r"label_names is"),
]


@pytest.mark.parametrize(("key", "value", "told"), MALFORMED, ids=lambda value: str(value)[:30])
def test_a_malformed_value_is_named_with_its_rule(folder: Path, key: str, value: Any, told: str):
    edit(folder, (key, value))
    with pytest.raises(WeightsError, match=told) as caught:
        load(folder)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", '"x"', "[" * 100_000, "\xff", "1" * 10_000, ""], ids=lambda c: c[:5]
)
def test_files_that_hold_no_such_object_are_refused(folder: Path, content: str):
    (folder / "config.json").write_text(content, "latin-1")
    with pytest.raises(WeightsError, match=r"is damaged: .*It should be JSON|does not say which model"):
        load(folder)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The sizes that networks are built with."""
    sizes: list[tuple[Any, Any]] = []
    build = loading._built

    def record(name: str, num_classes: Any, in_chans: Any) -> Any:
        sizes.append((num_classes, in_chans))
        return build(name, num_classes, in_chans)

    monkeypatch.setattr(loading, "_built", record)
    return sizes


def test_no_memory_is_taken_for_classes_that_the_weights_do_not_have(folder: Path, built: list[Any]):
    edit(folder, ("num_classes", 10**6), (f"{CFG}.num_classes", 10**6), (f"{CFG}.label_names", GONE))
    with pytest.raises(WeightsError, match=r"num_classes=1000000 and .*fc\.weight is of shape \(10, 4\) and should"):
        load(folder)
    assert built == [(None, None)]


def test_no_memory_is_taken_for_channels_that_the_weights_do_not_have(folder: Path, built: list[Any]):
    edit(folder, (f"{CFG}.input_size", [1024, 28, 28]), (f"{CFG}.mean", [0.5] * 1024), (f"{CFG}.std", [0.5] * 1024))
    with pytest.raises(WeightsError, match=r"in_chans=1024.*should then be of \(4, 1024, 3, 3\)\. .*both again"):
        load(folder)
    assert built == [(None, None)]


def test_images_of_another_size_than_the_network_takes_are_refused(folder: Path):
    edit(folder, (f"{CFG}.input_size", [1, 4096, 4096]))
    with pytest.raises(WeightsError, match=r"for inputs of \[1, 4096, 4096\], and their network takes \[1, 28, 28\]"):
        load(folder)


def test_a_head_that_is_missing_is_named(folder: Path, net: Any):
    from deqzoo.zoo.tensors import sha256, write_tensors

    write_tensors({"x": torch.zeros(1)}, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    edit(folder, ("deqzoo.weights", {"sha256": sha256(content), "size": len(content)}))
    with pytest.raises(WeightsError, match=r"do not fit PcDEQ\. missing: "):
        load(folder)
    edit(folder, ("num_classes", 9), (f"{CFG}.num_classes", 9), (f"{CFG}.label_names", GONE))
    with pytest.raises(WeightsError, match=r"fc\.weight is missing and should then be of \(9, 4\)"):
        load(folder)
