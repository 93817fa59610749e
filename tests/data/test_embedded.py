"""The embedded samples are what they claim to be."""

import hashlib

import pytest
import torch

from deqzoo.data import MNIST, EmbeddedSample, ImageFolder, embedded_samples
from deqzoo.errors import DataError

from .conftest import FullData

SHA256 = {
    "cifar10": "ee2b5def2d394e82692d698476149621d70be8e7d0fdad1c2b8f918ad594e53a",
    "mnist": "daee6941dac796e81b2539e2cd6ad2374ab391f8eff57bfa961f0d8909e9f7cd",
}


def test_the_samples_are_what_was_compared_with_the_full_data():
    """The last two tests compare; without the full data this one knows the pixels and labels that passed."""
    assert set(embedded_samples()) == set(SHA256)
    for name, expected in SHA256.items():
        sample = EmbeddedSample(name).image_set("test")
        content = sample.images.numpy().tobytes() + sample.labels.numpy().tobytes()
        assert hashlib.sha256(content).hexdigest() == expected


@pytest.mark.parametrize("name", embedded_samples())
def test_a_sample_is_balanced_mixed_and_fits_its_spec(name):
    data = EmbeddedSample(name)
    sample = data.image_set("test")
    assert sample.images.shape == (300, data.spec.channels, *data.spec.size)
    assert torch.bincount(sample.labels).tolist() == [30] * data.num_classes
    assert torch.bincount(sample.labels[:150], minlength=10).min() >= 5
    pixels = sample.images.double().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(pixels.mean(1), torch.tensor(data.spec.mean).double(), atol=0.03, rtol=0)
    assert len({image.numpy().tobytes() for image in sample.images}) == 300


def test_a_sample_is_evaluated_like_other_data():
    data = EmbeddedSample("mnist", eval_batch_size=64)
    batches = [data.on_after_batch_transfer(batch) for batch in data.test_dataloader()]
    assert [len(labels) for _, labels in batches] == [60] * 5
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.image_set("test").labels)


def test_a_sample_is_not_for_training():
    with pytest.raises(DataError, match=r"mnist has no training images.*train on the data set itself"):
        EmbeddedSample("mnist").setup("fit")


def test_an_unknown_sample_is_refused():
    with pytest.raises(DataError, match=r"no embedded sample of 'imagenet'.*cifar10, mnist"):
        EmbeddedSample("imagenet")


def test_the_mnist_sample_is_at_its_indices(full_data: FullData):
    data = EmbeddedSample("mnist")
    sample, whole = data.image_set("test"), MNIST(full_data("MNIST")).image_set("test")
    assert data.indices is not None
    assert torch.equal(whole.images[data.indices], sample.images)
    assert torch.equal(whole.labels[data.indices], sample.labels)


def test_the_cifar10_sample_is_part_of_the_test_set(full_data: FullData):
    whole = ImageFolder(full_data("cifar10") / "cifar10", like="cifar10").image_set("test")
    known = dict(zip((i.numpy().tobytes() for i in whole.images), whole.labels.tolist(), strict=True))
    sample = EmbeddedSample("cifar10").image_set("test")
    assert [known[image.numpy().tobytes()] for image in sample.images] == sample.labels.tolist()
