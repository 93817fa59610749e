"""Whoever trains in bfloat16 on a CPU that only imitates it is told before hours are lost."""

import pytest
import torch
from timm.optim import muon
from torch import nn

from deqzoo.tasks import ImageClassifier, slow_precision
from deqzoo.tasks.slow_precision import bfloat16_slowdown, keep_muon_fast, warn_if_slow

from .tiny import PixelsAsLogits, TinyNet, make_batches, make_trainer, train

TOLD = r"takes 23 times as long in it .* precision=bf16-mixed .*--trainer\.precision 32-true"


@pytest.fixture
def imitated(monkeypatch):
    """A CPU that is slow in bfloat16, whatever this one is."""
    monkeypatch.setattr(slow_precision, "bfloat16_slowdown", lambda: 23.4)


@pytest.mark.usefixtures("imitated")
@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")  # bfloat16 does not resolve the tolerance
def test_training_in_imitated_bfloat16_is_told_of_with_the_way_out():
    with pytest.warns(UserWarning, match=TOLD):
        train(ImageClassifier(TinyNet()), make_batches(1), precision="bf16-mixed", max_epochs=1)


@pytest.mark.usefixtures("imitated")
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_evaluation_in_imitated_bfloat16_is_too(verb):
    with pytest.warns(UserWarning, match=TOLD):
        getattr(make_trainer(precision="bf16-mixed"), verb)(ImageClassifier(PixelsAsLogits(16)), make_batches(1))


@pytest.mark.parametrize(("times", "precision"), [(23.4, "32-true"), (23.4, "64-true"), (1.5, "bf16-mixed")])
def test_nothing_is_said_where_nothing_is_slow(times, precision, monkeypatch, recwarn):
    monkeypatch.setattr(slow_precision, "bfloat16_slowdown", lambda: times)
    warn_if_slow(make_trainer(precision=precision))
    assert not [each for each in recwarn if "bfloat16" in str(each.message)]


@pytest.fixture
def precision_of(monkeypatch):
    """Tells in which precision Muon orthogonalises, on a device. Tests find it as timm has it, and leave it so."""
    monkeypatch.setattr(muon, "zeropower_via_newtonschulz", slow_precision._zeropower)
    coefficients = [(2.0, -1.5, 0.5)]
    return lambda device: muon.zeropower_via_newtonschulz(torch.ones(3, 4, device=device), 2, coefficients).dtype


@pytest.mark.usefixtures("imitated")
def test_muon_steps_in_float32_where_bfloat16_is_imitated(precision_of):
    for _ in range(2):  # a second run finds Muon changed already
        train(ImageClassifier(TinyNet(), optimizer=muon.Muon), make_batches(2), max_epochs=1)
        assert precision_of("cpu") == torch.float32
        assert precision_of("meta") == torch.bfloat16  # as on any other device


@pytest.mark.usefixtures("imitated")
def test_nothing_changes_for_other_optimizers(precision_of):
    train(ImageClassifier(TinyNet()), make_batches(1), max_epochs=1)
    assert precision_of("cpu") == torch.bfloat16


def test_muon_is_left_alone_where_bfloat16_is_fast(precision_of, monkeypatch):
    monkeypatch.setattr(slow_precision, "bfloat16_slowdown", lambda: 1.5)
    train(ImageClassifier(TinyNet(), optimizer=muon.Muon), make_batches(1), max_epochs=1)
    assert precision_of("cpu") == torch.bfloat16


@pytest.mark.usefixtures("imitated")
def test_muons_steps_in_float32_are_those_in_bfloat16_up_to_rounding(precision_of):
    steps = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        net = nn.Linear(24, 16, bias=False)
        before = net.weight.detach().clone()
        net.weight.grad = torch.randn(16, 24)
        optimizer = muon.Muon(net.parameters(), lr=0.1, weight_decay=0.0)
        if dtype == torch.float32:
            task = ImageClassifier(TinyNet())
            task.trainer = make_trainer()
            keep_muon_fast(optimizer, task)
        assert precision_of("cpu") == dtype
        optimizer.step()
        steps.append(net.weight.detach() - before)
    difference = (steps[1] - steps[0]).norm() / steps[0].norm()
    assert 0 < difference < 0.02


def test_the_measurement_tells_processors_apart():
    if torch.cpu._is_avx512_bf16_supported():
        assert bfloat16_slowdown() < 4
    elif torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert bfloat16_slowdown() > 4
    else:
        pytest.skip("How fast bfloat16 should be on this kind of processor is not known.")
