"""Descriptions of data sets."""

import subprocess
import sys

import pytest
import torch
from timm.data import ImageNetInfo

from deqzoo.models import INPUT_SPECS, entry


def test_imagenet_has_the_classes_of_timm():
    spec = INPUT_SPECS["imagenet-1k"]
    assert spec.label_names == tuple(ImageNetInfo("imagenet-1k").label_names())
    assert len(spec.label_names) == 1000
    assert spec.label_names[0] == "n01440764"
    assert (spec.size, spec.channels) == ((224, 224), 3)


def test_every_name_is_listed_and_found():
    assert set(INPUT_SPECS) == {INPUT_SPECS[name].dataset for name in INPUT_SPECS}
    assert len(INPUT_SPECS) == len(list(INPUT_SPECS)) >= 6
    assert "imagenet-1k" in INPUT_SPECS
    assert "imagenet" not in INPUT_SPECS
    assert INPUT_SPECS.get("imagenet") is None
    with pytest.raises(KeyError):
        INPUT_SPECS["imagenet"]


def test_asking_whether_it_is_there_does_not_import_timm():
    code = "import sys; from deqzoo.models import INPUT_SPECS; assert 'imagenet-1k' in INPUT_SPECS; list(INPUT_SPECS);"
    code += "assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", ["small", "large", "xl"])
def test_networks_for_imagenet_are_built_without_memory(size: str):
    with torch.device("meta"):
        net = entry(f"mdeq-imagenet-{size}").build()
    assert net.fc.weight.shape == (1000, 2048)
    assert all(p.is_meta for p in net.parameters())
