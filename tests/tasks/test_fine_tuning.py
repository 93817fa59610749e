"""A pretrained model on other data: better than the same network from scratch, after as many epochs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import deqzoo
from deqzoo.data import EmbeddedSample
from deqzoo.tasks import ImageClassifier

from .tiny import Batches, make_trainer


def other_digits() -> tuple[Tensor, Tensor]:
    """Digits in another hand: thick, grey and off the centre, to be sorted into three groups of their own."""
    sample = EmbeddedSample("mnist").image_set("test")
    images = functional.max_pool2d(sample.images.float(), 3, stride=1, padding=1).roll((1, -1), (2, 3)).div(255)
    return (images - 0.26) / 0.31, sample.labels % 3


def other_photographs() -> tuple[Tensor, Tensor]:
    """Photographs that training has not seen, in grey, to be sorted into vehicles and animals."""
    sample = EmbeddedSample("cifar10").image_set("test")
    images = sample.images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1).div(255)
    vehicles = torch.tensor([0, 1, 8, 9])  # airplane, automobile, ship, truck
    return (images - 0.47) / 0.25, torch.isin(sample.labels, vehicles).long()


def accuracy(model: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


@pytest.mark.filterwarnings("ignore::deqzoo.errors.UnconvergedWarning")  # of single images, on the way
@pytest.mark.parametrize(
    ("name", "data", "lr"), [("pcdeq-mnist-linear", other_digits, 3e-3), ("mdeq-cifar-tiny", other_photographs, 1e-3)]
)
def test_fine_tuning_beats_training_from_scratch(name: str, data: Callable[[], tuple[Tensor, Tensor]], lr: float):
    images, labels = data()
    num_classes = int(labels.max()) + 1
    batches = Batches((images[i : i + 20], labels[i : i + 20]) for i in range(0, 120, 20))
    scores = {}
    for start in ("pretrained", "scratch"):
        torch.manual_seed(0)
        if start == "pretrained":
            model = deqzoo.load(name, num_classes=num_classes)
        else:
            model = ImageClassifier(deqzoo.create_model(name, num_classes=num_classes))
        assert isinstance(model, ImageClassifier)
        model.make_optimizer = lambda groups: torch.optim.AdamW(groups, lr=lr)
        trainer = make_trainer(max_epochs=2, limit_val_batches=0)
        trainer.fit(model, batches, batches)
        scores[start] = accuracy(model, images[120:], labels[120:])
    assert scores["pretrained"] > scores["scratch"] + 0.05, scores
