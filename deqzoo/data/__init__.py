"""Image data: data modules, augmentations on the training device, and samples inside the package."""

from deqzoo.data.augment import Augmentation, Cutout, ElasticDeform, RandomAffine, RandomFlip, RandomShift
from deqzoo.data.batches import Batch, EvalBatches, TrainBatches
from deqzoo.data.catalogue import DATASETS, open_data
from deqzoo.data.embedded import EmbeddedSample, embedded_samples
from deqzoo.data.image_data import ImageData
from deqzoo.data.image_folder import ImageFolder
from deqzoo.data.image_set import ImageSet, normalise, to_float
from deqzoo.data.pictures import open_image, read_image, to_pixels
from deqzoo.data.torchvision_data import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, TorchvisionData

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DATASETS",
    "MNIST",
    "SVHN",
    "Augmentation",
    "Batch",
    "Cutout",
    "ElasticDeform",
    "EmbeddedSample",
    "EvalBatches",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "ImageSet",
    "RandomAffine",
    "RandomFlip",
    "RandomShift",
    "TorchvisionData",
    "TrainBatches",
    "embedded_samples",
    "normalise",
    "open_data",
    "open_image",
    "read_image",
    "to_float",
    "to_pixels",
]
