"""What the zoo says it has."""

from pathlib import Path

import pytest

import deqzoo
from deqzoo import describe, list_models


def test_models_are_found_by_pattern_weights_and_task(package: Path):
    assert list_models("zoo-probe*") == ["zoo-probe", "zoo-probe-dense", "zoo-probe-rgb"]
    assert list_models("ZOO_*", pretrained=True) == ["zoo-probe"]
    assert list_models("zoo-*", pretrained=False) == ["zoo-probe-dense", "zoo-probe-rgb"]
    assert list_models("zoo-probe", task="Image_Classification") == ["zoo-probe"]
    with pytest.raises(ValueError, match="no task 'baking'"):
        list_models(task="baking")
    assert "pcdeq-mnist" in list_models()


def test_a_description_is_built_from_the_network_and_the_manifest(package: Path):
    found = describe("ZOO_probe")
    net = deqzoo.create_model("zoo-probe")
    assert found.num_parameters == sum(p.numel() for p in net.parameters())
    text = str(found)
    for part in (
        "zoo-probe: A convolutional probe of 4 channels.",
        "1x28x28 images",
        "Picard(rtol=0.0001",
        "recipes/zoo-probe.yaml",
        "in the package, apache-2.0",
        "cc-by-sa-3.0",
        "99.54 % (95 % interval 99.39 to 99.67)",
        'deqzoo.load("zoo-probe")',
    ):
        assert part in text
    assert 'deqzoo.create_model("zoo-probe-rgb")' in str(describe("zoo-probe-rgb"))
