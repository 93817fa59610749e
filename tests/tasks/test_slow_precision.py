"""Whoever trains in bfloat16 on a CPU that only imitates it is told before hours are lost."""

import pytest
import torch

from deqzoo.tasks import ImageClassifier, slow_precision
from deqzoo.tasks.slow_precision import bfloat16_slowdown, warn_if_slow

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


@pytest.mark.usefixtures("imitated")
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
@pytest.mark.filterwarnings("error:This CPU has no instructions for bfloat16")
def test_nothing_is_said_of_other_precisions(precision):
    warn_if_slow(make_trainer(precision=precision))


@pytest.mark.filterwarnings("error:This CPU has no instructions for bfloat16")
def test_nothing_is_said_where_bfloat16_is_fast(monkeypatch):
    monkeypatch.setattr(slow_precision, "bfloat16_slowdown", lambda: 1.5)
    warn_if_slow(make_trainer(precision="bf16-mixed"))


def test_the_measurement_tells_processors_apart():
    if torch.cpu._is_avx512_bf16_supported():
        assert bfloat16_slowdown() < 4
    elif torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert bfloat16_slowdown() > 4
    else:
        pytest.skip("How fast bfloat16 should be on this kind of processor is not known.")
