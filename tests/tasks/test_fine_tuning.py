"""A pretrained model on other data: better than the same network from scratch, after as many epochs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import deqzoo
from deqzoo.benchmark.evaluate import evaluate
from deqzoo.data import EmbeddedSample, ImageFolder
from deqzoo.errors import DataError
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


@pytest.fixture
def flowers(tmp_path: Path) -> ImageFolder:
    """Four images to train on and two to test on, of two classes."""
    for split, kinds in {"train": ("rose", "tulip"), "test": ("rose", "tulip")}.items():
        for i, kind in enumerate(kinds):
            folder = tmp_path / "flowers" / split / kind
            folder.mkdir(parents=True)
            for shade in (40, 80):
                Image.new("L", (28, 28), shade + 100 * i).save(folder / f"{shade}.png")
    return ImageFolder(tmp_path / "flowers", like="mnist", batch_size=2)


def test_a_checkpoint_of_other_classes_is_complete_by_itself(flowers: ImageFolder, tmp_path: Path):
    """No recipe is beside it: it knows its network, the number of its classes, and their names."""
    model = deqzoo.load("pcdeq-mnist-linear", num_classes=2)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, flowers)
    trainer.save_checkpoint(tmp_path / "flowers.ckpt")
    again: Any = deqzoo.load(tmp_path / "flowers.ckpt")
    assert again.net.pretrained_cfg["label_names"] == ["rose", "tulip"]
    assert torch.equal(again.net.get_classifier().weight, model.net.get_classifier().weight)
    assert evaluate(again, flowers).num_images == 4
    deqzoo.zoo.save(again.net, tmp_path / "flowers", name="pcdeq-mnist-linear")
    saved: Any = deqzoo.load(tmp_path / "flowers")
    assert saved.net.pretrained_cfg["label_names"] == ["rose", "tulip"]


def test_classes_without_names_are_taken_for_those_of_the_data(flowers: ImageFolder):
    assert evaluate(deqzoo.load("pcdeq-mnist-linear", num_classes=2), flowers).num_images == 4
    with pytest.raises(DataError, match=r"labels of flowers \(2\) are not those of the model \(3, mnist\)"):
        evaluate(deqzoo.load("pcdeq-mnist-linear", num_classes=3), flowers)


def test_as_many_classes_as_before_get_the_names_of_the_new_ones(flowers: ImageFolder):
    model: Any = deqzoo.load("pcdeq-mnist-linear", num_classes=2)
    model.net.pretrained_cfg["label_names"] = ["odd", "even"]
    trainer = make_trainer(max_epochs=1)
    trainer.test(model, flowers, verbose=False)
    assert model.net.pretrained_cfg["label_names"] == ["odd", "even"]
    trainer.fit(model, flowers)
    assert model.net.pretrained_cfg["label_names"] == ["rose", "tulip"]


def test_trainer_predicts_from_images_with_and_without_labels(flowers: ImageFolder):
    model = deqzoo.load("pcdeq-mnist-linear", num_classes=2)
    trainer = make_trainer()
    logits = trainer.predict(model, flowers)
    assert logits is not None
    images = torch.stack([model.transform(Image.new("L", (28, 28), shade)) for shade in (40, 80, 140, 180)])
    torch.testing.assert_close(torch.cat(logits), model(images), rtol=1e-4, atol=1e-4)  # pyright: ignore
    alone = trainer.predict(model, torch.utils.data.DataLoader(images, batch_size=2))  # pyright: ignore
    torch.testing.assert_close(torch.cat(alone), torch.cat(logits), rtol=1e-4, atol=1e-4)  # pyright: ignore
