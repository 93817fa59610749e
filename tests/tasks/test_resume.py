"""A run that is interrupted and resumed ends as if it had not been."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from deqzoo.tasks import ImageClassifier, RandomState, WarmupCosine, WarmupEMA

from .tiny import TinyData, TinyNet, make_trainer

EPOCHS = 4


def train(folder, *, stop_after=EPOCHS, ckpt_path=None, **options):
    """Returns the task after training until an epoch of a run of `EPOCHS`."""
    if ckpt_path is None:
        seed_everything(0, verbose=False)
    task = ImageClassifier(TinyNet(dropout=0.2), schedule=WarmupCosine(warmup=0.25), **options)
    last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)
    # As by an interruption: the schedule knows nothing of the stop.
    callbacks = [WarmupEMA(decay=0.9), RandomState(), StopAfter(stop_after), last]
    trainer = make_trainer(max_epochs=EPOCHS, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(task, TinyData(), ckpt_path=ckpt_path)
    return task


class StopAfter(Callback):
    """Ends training after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 == self.epochs:
            trainer.should_stop = True


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("options", [{}, {"mixup": 0.4, "cutmix": 1.0}], ids=["plain", "mixed"])
def test_a_resumed_run_ends_with_the_same_weights(options, tmp_path):
    whole = train(tmp_path / "whole", **options)
    train(tmp_path / "parts", stop_after=2, **options)
    # Whoever resumes has drawn other numbers meanwhile.
    torch.manual_seed(5)
    np.random.seed(5)
    resumed = train(tmp_path / "parts", ckpt_path=tmp_path / "parts" / "last.ckpt", **options)
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts")]
    assert ends[0]["epoch"] == ends[1]["epoch"] == EPOCHS - 1
    for key in ("state_dict", "current_model_state"):
        for name, value in ends[0][key].items():
            assert torch.equal(value, ends[1][key][name]), name
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_every_generator_goes_on_where_it_was():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    saved = RandomState().state_dict()
    expected = draw()
    restored = RandomState()
    restored.load_state_dict(saved)
    assert draw() != expected
    restored.on_train_start(make_trainer(), ImageClassifier(TinyNet()))
    assert draw() == expected
    # Only once: the next run of the same trainer is another one.
    restored.on_train_start(make_trainer(), ImageClassifier(TinyNet()))
    assert draw() != expected


def test_the_module_loads_from_a_checkpoint_that_holds_only_data(tmp_path):
    trained = train(tmp_path)
    loaded = ImageClassifier.load_from_checkpoint(
        tmp_path / "last.ckpt", net=TinyNet(), weights_only=True, map_location="cpu"
    )
    images = TinyData().test_dataloader()[0][0]
    assert torch.equal(loaded.eval()(images), trained.eval()(images))
