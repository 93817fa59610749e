"""What images a classifier of a data set expects: size, normalisation and labels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The inputs of one data set.

    Attributes:
        dataset: its name.
        size: height and width in pixels.
        channels: 1 for grey images, 3 for RGB.
        mean: of each channel over the training set, for pixels in [0, 1].
        std: likewise the standard deviation.
        label_names: the classes in label order.
        license: of the data set, as its owners state it.

    """

    dataset: str
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_names: tuple[str, ...]
    license: str


_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

_SPECS = {
    spec.dataset: spec
    for spec in (
        InputSpec(
            dataset="mnist",
            size=(28, 28),
            channels=1,
            mean=(0.1307,),
            std=(0.3081,),
            label_names=tuple("0123456789"),
            license="cc-by-sa-3.0",
        ),
        InputSpec(
            dataset="fashion-mnist",
            size=(28, 28),
            channels=1,
            mean=(0.2860,),
            std=(0.3530,),
            label_names=(
                "T-shirt/top",
                "trouser",
                "pullover",
                "dress",
                "coat",
                "sandal",
                "shirt",
                "sneaker",
                "bag",
                "ankle boot",
            ),
            license="mit",
        ),
        InputSpec(
            dataset="cifar10",
            size=(32, 32),
            channels=3,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            label_names=(
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
            license="unknown",
        ),
        InputSpec(
            dataset="cifar100",
            size=(32, 32),
            channels=3,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            label_names=tuple(_CIFAR100.split()),
            license="unknown",
        ),
        InputSpec(
            dataset="svhn",
            size=(32, 32),
            channels=3,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            label_names=tuple("0123456789"),
            license="non-commercial",
        ),
    )
}


@cache
def _imagenet() -> InputSpec:
    # timm has the list of classes, and takes half a second to import.
    from timm.data.imagenet_info import ImageNetInfo

    return InputSpec(
        dataset="imagenet-1k",
        size=(224, 224),
        channels=3,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        label_names=tuple(ImageNetInfo("imagenet-1k").label_names()),  # WordNet's, as its folders are called
        license="non-commercial research",
    )


class _InputSpecs(Mapping[str, InputSpec]):
    """Data sets by name, of which the large ones are described when they are asked for."""

    def __init__(self, specs: Mapping[str, InputSpec], late: Mapping[str, Callable[[], InputSpec]]) -> None:
        self._specs, self._late = specs, late

    def __getitem__(self, name: str) -> InputSpec:
        return self._late[name]() if name in self._late else self._specs[name]

    def __contains__(self, name: object) -> bool:
        return name in self._specs or name in self._late

    def __iter__(self) -> Iterator[str]:
        yield from self._specs
        yield from self._late

    def __len__(self) -> int:
        return len(self._specs) + len(self._late)


INPUT_SPECS: Mapping[str, InputSpec] = _InputSpecs(_SPECS, {"imagenet-1k": _imagenet})
