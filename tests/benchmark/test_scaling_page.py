"""The page on scaling says what the model and the measurements beside it say."""

import json
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from deqzoo import create_model
from deqzoo.benchmark.scaling import Cluster, StepCost
from deqzoo.benchmark.scaling_plot import curve, own_step

FOLDER = Path(__file__).parents[2] / "recipes" / "scaling"
PAGE = (FOLDER / "README.md").read_text("utf-8")
RECIPES = ("mdeq-imagenet-small", "deq-lm-wikitext103")


def plan(recipe: str):
    return json.loads((FOLDER / f"{recipe}.json").read_text())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("factor", "suffix"), [(1, ""), (10, ", steps ten times as fast")])
def test_efficiencies_are_those_of_the_model(recipe, factor, suffix):
    own = own_step(plan(recipe))
    cost = StepCost(seconds=own.seconds / factor, backward=own.backward, gradient_bytes=own.gradient_bytes)
    shares = {point["gpus"]: f"{100 * point['efficiency']:.1f}" for point in curve(cost, Cluster())}
    row = " | ".join([f"{recipe}{suffix}", f"{cost.seconds:.3g}", *(shares[n] for n in (1, 8, 64, 256, 1024))])
    assert f"| {row} |" in PAGE


def test_bytes_per_operation_are_those_that_were_counted():
    measured = plan("mdeq-imagenet-small")
    assert measured["gradient_bytes"] == 4 * sum(p.numel() for p in create_model("mdeq-imagenet-small").parameters())
    flops = measured["flops_per_step"] / measured["batch_size"]
    assert f"| 67.2 MB | {flops / 1e9:.1f} | {measured['gradient_bytes'] / (flops / 1e9) / 1e6:.2f} MB |" in PAGE
    with torch.device("meta"):
        resnet = timm.create_model("resnet50")
        images = torch.empty(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        resnet(images).sum().backward()
    sent, counted = 4 * sum(p.numel() for p in resnet.parameters()), counter.get_total_flops()
    assert f"| {sent / 1e6:.1f} MB | {counted / 1e9:.1f} | {sent / (counted / 1e9) / 1e6:.2f} MB |" in PAGE
    ratio = (sent / counted) / (measured["gradient_bytes"] / flops)
    assert f"{ratio:.1f} times fewer bytes" in PAGE
    assert f"{sent / measured['gradient_bytes']:.1f} times because it has fewer weights" in PAGE
    assert f"{flops / counted:.1f} times because it computes more" in PAGE
