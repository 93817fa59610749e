"""What happens to the learning rate when there are more devices, or fewer, than a recipe is for."""

import pytest
import torch

from deqzoo.data import NoiseImages
from deqzoo.errors import DataError
from deqzoo.tasks import GlobalBatch, ImageClassifier

from .tiny import TinyNet, make_trainer


def fit(size: int, *, accumulate: int = 1, **options):
    """Returns the data and the learning rate after a step with batches of 8."""
    net = TinyNet()
    net.num_classes, net.fc = 10, torch.nn.Linear(8, 10)
    data = NoiseImages("mnist", size=4, num_images=64, batch_size=8)
    task = ImageClassifier(net, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
    guard = GlobalBatch(size, **options)
    trainer = make_trainer(
        max_epochs=1, limit_train_batches=accumulate, accumulate_grad_batches=accumulate, callbacks=[guard]
    )
    trainer.fit(task, data)
    return data, {group["lr"] for group in trainer.optimizers[0].param_groups}


@pytest.mark.filterwarnings("ignore:The learning rate is for 4 samples")
def test_a_task_that_is_fitted_again_is_not_scaled_again():
    net = TinyNet()
    net.num_classes, net.fc = 10, torch.nn.Linear(8, 10)
    task = ImageClassifier(net, optimizer=lambda groups: torch.optim.SGD(groups, 0.1))
    for _ in range(3):
        trainer = make_trainer(max_steps=1, callbacks=[GlobalBatch(4, rule="linear")])
        trainer.fit(task, NoiseImages("mnist", size=4, num_images=64, batch_size=8))
        assert {group["lr"] for group in trainer.optimizers[0].param_groups} == {0.2}


def test_the_batch_of_the_recipe_needs_nothing():
    data, rates = fit(16, accumulate=2)
    assert (data.batch_size, rates) == (8, {0.1})


def test_the_batch_is_shared():
    with pytest.warns(UserWarning, match=r"1 process\(es\) with batches of 8, 2 per step, make 16: batches are of 16"):
        data, rates = fit(32, accumulate=2)
    assert (data.batch_size, rates) == (16, {0.1})


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(DataError, match=r"is for 9 samples per step.*cannot be shared equally.*to a divisor"):
        fit(9, accumulate=2)


@pytest.mark.parametrize(("rule", "want"), [("linear", 0.025), ("sqrt", 0.05)])
def test_the_rate_follows_the_batch(rule, want):
    with pytest.warns(UserWarning, match=r"for 32 samples .* multiplied by .* there are 4/1 as many steps"):
        data, rates = fit(32, rule=rule)
    assert data.batch_size == 8
    assert list(rates) == [pytest.approx(want)]


def test_a_warning_changes_nothing():
    with pytest.warns(UserWarning, match="Nothing is changed: scale the learning rate"):
        data, rates = fit(32, rule="warn")
    assert (data.batch_size, rates) == (8, {0.1})


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 8, "rule": "cubic"}], ids=str)
def test_values_out_of_range(options):
    with pytest.raises(ValueError, match="correct the value"):
        GlobalBatch(**options)
