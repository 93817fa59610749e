"""The average of the weights."""

from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from deqzoo.tasks import ImageClassifier, WarmupEMA

from .tiny import TinyData, TinyNet, make_trainer


class Weights(Callback):
    """Keeps the state of the module after every step and during every validation."""

    def __init__(self):
        self.after_steps = []
        self.in_validation = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after_steps.append(deepcopy(pl_module.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.in_validation.append(deepcopy(pl_module.state_dict()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One epoch of 6 steps with an average that remembers at most a quarter: (weights, module, checkpoint)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    task, weights = ImageClassifier(TinyNet()), Weights()
    last = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)
    callbacks = [WarmupEMA(decay=0.25), weights, last]
    trainer = make_trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True, num_sanity_val_steps=0)
    trainer.fit(task, TinyData())
    return weights, task, torch.load(folder / "last.ckpt", weights_only=True)


def expected_average(states):
    """Returns the average by its definition. The first step starts it."""
    average = dict(states[0])
    for t, state in enumerate(states[1:], start=1):
        keep = min(0.25, (1 + t) / (10 + t))
        for name, value in state.items():
            average[name] = keep * average[name] + (1 - keep) * value if value.is_floating_point() else value
    return average


def test_the_checkpoint_holds_the_average_and_the_weights(run):
    weights, _, checkpoint = run
    expected = expected_average(weights.after_steps)
    assert checkpoint["state_dict"].keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(checkpoint["state_dict"][name], value)
        assert torch.equal(checkpoint["current_model_state"][name], weights.after_steps[-1][name])
    trained = "net.entry.weight"
    assert not torch.allclose(checkpoint["state_dict"][trained], checkpoint["current_model_state"][trained], atol=1e-5)


def test_buffers_are_averaged_and_counters_copied(run):
    weights, _, checkpoint = run
    averaged, last = checkpoint["state_dict"], weights.after_steps[-1]
    assert not torch.allclose(averaged["net.norm.running_mean"], last["net.norm.running_mean"], atol=1e-4)
    assert averaged["net.norm.num_batches_tracked"] == last["net.norm.num_batches_tracked"] == 6


def test_validation_and_the_trained_module_use_the_average(run):
    weights, task, checkpoint = run
    for state in (weights.in_validation[0], task.state_dict()):
        for name, value in checkpoint["state_dict"].items():
            assert torch.equal(state[name], value), name


def test_evaluation_takes_a_checkpoint_without_a_word(run, tmp_path, recwarn):
    _, task, checkpoint = run
    torch.save(checkpoint, tmp_path / "last.ckpt")
    fresh = ImageClassifier(TinyNet())
    make_trainer(callbacks=[WarmupEMA()]).test(fresh, TinyData(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    for name, value in task.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    assert not [w for w in recwarn if "WeightAveraging" in str(w.message)]


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_an_average_that_never_forgets_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay = .*choose from \[0, 1\)"):
        WarmupEMA(decay=decay)
