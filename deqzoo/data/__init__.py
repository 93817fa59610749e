"""Images and texts: data modules, augmentations on the training device, and samples inside the package."""

from deqzoo.data.augment import Augmentation, Cutout, ElasticDeform, RandomAffine, RandomFlip, RandomShift
from deqzoo.data.batches import EvalBatches, TrainBatches
from deqzoo.data.catalogue import DATASETS, open_data
from deqzoo.data.embedded import EmbeddedSample, embedded_samples
from deqzoo.data.image_data import ImageData
from deqzoo.data.image_folder import ImageFolder
from deqzoo.data.image_set import Batch, ImageSet, normalise, to_float
from deqzoo.data.noise_images import NoiseImages
from deqzoo.data.noise_text import NoiseText
from deqzoo.data.pictures import open_image, read_image, to_pixels
from deqzoo.data.random_crop import RandomCrop
from deqzoo.data.streamed_folder import StreamedImageFolder
from deqzoo.data.text_data import TextData
from deqzoo.data.text_named import TEXTS, EmbeddedText, PennTreebank, TinyShakespeare, WikiText103, open_text
from deqzoo.data.text_set import EveryToken, RandomWindows, Streams, TextBatch, TextSet
from deqzoo.data.timm_stream import TimmStream
from deqzoo.data.torchvision_data import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, TorchvisionData

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DATASETS",
    "MNIST",
    "SVHN",
    "TEXTS",
    "Augmentation",
    "Batch",
    "Cutout",
    "ElasticDeform",
    "EmbeddedSample",
    "EmbeddedText",
    "EvalBatches",
    "EveryToken",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "ImageSet",
    "NoiseImages",
    "NoiseText",
    "PennTreebank",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomShift",
    "RandomWindows",
    "StreamedImageFolder",
    "Streams",
    "TextBatch",
    "TextData",
    "TextSet",
    "TimmStream",
    "TinyShakespeare",
    "TorchvisionData",
    "TrainBatches",
    "WikiText103",
    "embedded_samples",
    "normalise",
    "open_data",
    "open_image",
    "open_text",
    "read_image",
    "to_float",
    "to_pixels",
]
