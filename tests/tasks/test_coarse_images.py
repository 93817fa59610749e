"""Training on coarse images, and on images as they are otherwise."""

import pytest
import torch
from torch import Tensor, nn

from deqzoo.errors import StructureError
from deqzoo.tasks import CoarseImages, ImageClassifier

from .tiny import Batches, make_trainer


class Pooled(nn.Module):
    """A classifier of images of any size that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 2
        self.pretrained_cfg = {"input_size": (1, 12, 8), "mean": (0.5,), "std": (0.25,)}
        self.head = nn.Linear(1, 2)
        self.seen: list[tuple[bool, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, x.detach()))
        return self.head(x.mean((2, 3)))


def batches(count: int) -> Batches:
    torch.manual_seed(0)
    return Batches((torch.randn(5, 1, 12, 8), torch.randint(2, (5,))) for _ in range(count))


def sizes(callback: CoarseImages) -> tuple[list[torch.Size], list[torch.Size]]:
    """Sizes in training, and in validation."""
    net = Pooled()
    trainer = make_trainer(max_epochs=2, callbacks=[callback], limit_val_batches=1)
    trainer.fit(ImageClassifier(net), batches(2), batches(1))
    shapes = [[x.shape[2:] for training, x in net.seen if training is mode] for mode in (True, False)]
    return shapes[0], shapes[1]


def test_training_images_alone_are_shrunk_for_their_part_of_a_run():
    training, validation = sizes(CoarseImages(size=4, end=0.5))
    assert training == [(6, 4), (6, 4), (12, 8), (12, 8)]
    assert set(validation) == {(12, 8)}


@pytest.mark.parametrize("size", [8, 20])
def test_small_images_stay_as_they_are(size):
    training, _ = sizes(CoarseImages(size=size))
    assert set(training) == {(12, 8)}


def test_coarse_images_are_the_same_pictures():
    net = Pooled()
    callback = CoarseImages(size=4)
    task = ImageClassifier(net)
    callback.do(task)
    ramp = torch.linspace(-1, 1, 8).expand(3, 1, 12, 8)
    net(ramp)
    callback.undo()
    net(ramp)
    (_, coarse), (_, whole) = net.seen
    assert torch.equal(whole, ramp)
    middle = coarse[:, :, :, 1:-1]  # without what the edge has to do with
    expected = ramp.unflatten(3, (4, 2)).mean(4, keepdim=False)[:, :, ::2, 1:-1]
    torch.testing.assert_close(middle, expected, atol=1e-5, rtol=0)


def test_what_is_no_image_is_refused():
    callback = CoarseImages(size=4)
    task = ImageClassifier(Pooled())
    callback.do(task)
    with pytest.raises(StructureError, match=r"met an input of shape \(3, 20\)"):
        task.net(torch.zeros(3, 20))


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="It is a number of pixels"):
        CoarseImages(size=0)
