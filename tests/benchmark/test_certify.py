"""Certificates in figures, on cards and checked again."""

import json
from pathlib import Path

import pytest
import torch

from deqzoo import create_model, load
from deqzoo.benchmark.certify import certify, guarantee
from deqzoo.benchmark.verify import _certificate, _rates
from deqzoo.data import EmbeddedSample
from deqzoo.models import entry
from deqzoo.models.mondeq import MonDEQ, MonDEQConfig
from deqzoo.tasks import ImageClassifier
from deqzoo.zoo.card_sections import convergence
from deqzoo.zoo.layout import pretrained_cfg

SAMPLE = EmbeddedSample("mnist")


@pytest.mark.parametrize("name", ["mondeq-mnist-dense", "deq-mnist-dense"])
def test_a_certificate_of_the_weights_alone_is_that_of_every_image(name: str):
    torch.manual_seed(0)
    model = ImageClassifier(create_model(name)).eval()
    found = certify(model, SAMPLE)
    assert (found.num_images, found.data, found.unique, found.estimated) == (None, None, True, False)
    assert found.rate_max == found.rate_mean
    assert found.steps_max == found.steps_p95
    told = convergence({"certificate": json.loads(json.dumps(found.as_dict(), allow_nan=False))})
    assert told is not None
    assert told.startswith("## Certificate\n\nIts equilibrium exists")
    assert "the figures hold for every image, rates and bounds are upper ones" in told
    assert "₂ |" in told


def test_figures_across_resolutions_are_told_to_be_estimates():
    torch.manual_seed(0)
    net = MonDEQ(MonDEQConfig(widths=(3, 4), image_size=28, cells=2), in_chans=1)
    net.pretrained_cfg = pretrained_cfg(entry("mondeq-mnist"), net)
    found = certify(ImageClassifier(net).eval(), SAMPLE)
    assert found.estimated
    told = convergence({"certificate": found.as_dict()})
    assert told is not None
    assert "figures are estimates, of Lanczos' method" in told
    assert "and are estimates, no bounds." in told
    assert "upper ones" not in told


def test_what_is_certain_without_a_certificate_is_on_the_card():
    certain = guarantee(create_model("node-mnist"))
    assert certain is not None
    assert convergence({"guarantee": certain, "certificate": None}) == f"## Guarantee\n\n{certain}"
    assert guarantee(torch.nn.Linear(2, 2)) is None


def test_unproved_weights_are_told_to_be():
    torch.manual_seed(0)
    model = ImageClassifier(create_model("mondeq-mnist-dense")).eval()
    operator = model.net.equilibrium.cell.operator  # pyright: ignore
    torch.nn.utils.parametrize.remove_parametrizations(operator, "weight")
    with torch.no_grad():
        operator.weight.copy_(3 * torch.eye(87))
    told = convergence({"certificate": certify(model, SAMPLE).as_dict()})
    assert told is not None
    assert "nothing is proved" in told


def test_a_certificate_is_checked_again_and_a_better_one_does_not_hold():
    torch.manual_seed(0)
    model = ImageClassifier(create_model("mondeq-mnist-dense")).eval()
    claimed = certify(model, SAMPLE).as_dict()
    for check in (*_rates(model, SAMPLE, claimed), *_certificate(model, SAMPLE, claimed, False)):
        assert check.verdict == "held", check
    margin, norm = next(iter(claimed["at_least"])), next(iter(claimed["at_most"]))
    for better in (
        {"at_least": {margin: 1.01 * claimed["at_least"][margin]}},
        {"at_most": {norm: 0.99 * claimed["at_most"][norm]}},
        {"unique": False},
    ):
        wrong = [check for check in _rates(model, SAMPLE, claimed | better) if check.verdict != "held"]
        assert len(wrong) == 1
    worse = {"at_least": {margin: 0.9}, "at_most": {norm: 100.0}}
    assert all(check.verdict == "held" for check in _rates(model, SAMPLE, claimed | worse))
    faster = claimed | {"rate_max": [0.5 * claimed["rate_max"][0]]}
    wrong = [check.what for check in _certificate(model, SAMPLE, faster, False) if check.verdict != "held"]
    assert wrong == ["certificate, rate max"]


def test_the_shipped_certificates_are_in_this_form():
    for name in ("pcdeq-mnist", "pcdeq-mnist-linear"):
        results = json.loads((Path(load.__code__.co_filename).parent / f"weights/{name}/results.json").read_text())
        model = load(name)
        assert results["guarantee"] == guarantee(model.net) == results["certificate"]["guarantee"]  # pyright: ignore
        assert set(results["certificate"]) == set(certify(model, SAMPLE, max_images=2).as_dict())
