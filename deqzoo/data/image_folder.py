"""Images in folders named after their classes."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

import torch
from tqdm import tqdm

from deqzoo.data.image_data import ImageData, ImageOptions, Split
from deqzoo.data.image_set import Images, ImageSet
from deqzoo.data.pictures import read_image
from deqzoo.errors import DataError, listed
from deqzoo.models.input_spec import INPUT_SPECS, InputSpec

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"})
"""Endings of the files that count as images, in lower case."""

_LAYOUT = "root/train/<class>/<image> and root/test/<class>/<image> (or root/val)"
_QUIET_BELOW = 1000  # files; fewer are read in about a second, and a progress bar would only flicker


class ImageFolder(ImageData):
    """Images under root/train/<class>/ and root/test/<class>/, at any depth below the class.

    Labels number the class folders of `train` in alphabetical order. Where root/val exists, it is the
    validation set; it stands in for a missing root/test too. Grey and coloured images are converted to the
    channels of the spec. Images of the right size keep their pixels exactly; others are scaled and cropped at
    the centre.

    Args:
        root: holds the folders `train`, and `test` or `val`.
        like: a data set of `INPUT_SPECS` whose channels, size and normalisation are used, and its order of
            labels where the folders are its classes. Without it, images are RGB and normalised to [−1, 1].
        size: height and width in pixels, if other than those of `like`.
        **options: of `ImageData`.

    Raises:
        DataError: for missing or empty folders, damaged images, or classes that training does not know.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        like: str | None = None,
        size: int | None = None,
        **options: Unpack[ImageOptions],
    ) -> None:
        root = Path(root).expanduser()
        super().__init__(_spec(root, like, size), root, **options)
        if self.val_size and (root / "val").is_dir():
            raise DataError(
                f"val_size = {self.val_size}, but {root / 'val'} exists. Validation images come from one "
                "place: set val_size to 0, or move the folder away."
            )

    @property
    def _has_val(self) -> bool:
        return self.val_size > 0 or (self.root / "val").is_dir()

    def _load(self, split: Split) -> dict[Split, Images]:
        if split == "val" and self.val_size == 0 and self._has_val:
            return {"val": self._decode(self.root / "val")}
        return super()._load(split)

    def read(self, split: Literal["train", "test"]) -> Images:
        """Returns the decoded images of root/train or root/test, for want of the latter of root/val."""
        folder = self.root / split
        stand_in = self.root / "val"
        return self._decode(stand_in if split == "test" and not folder.is_dir() and stand_in.is_dir() else folder)

    def _decode(self, folder: Path) -> Images:
        spec, files = self.spec, self._files(folder)
        images = torch.empty(len(files), spec.channels, *spec.size, dtype=torch.uint8)
        labels = torch.tensor([label for _, label in files])
        quiet = True if len(files) < _QUIET_BELOW else None  # None: where stderr is no terminal
        bar = tqdm(files, desc=f"reading {folder.name}", unit="image", disable=quiet)
        for image, (path, _) in zip(images, bar, strict=True):
            image.copy_(read_image(path, spec))
        return ImageSet(images=images, labels=labels)

    def _files(self, folder: Path) -> list[tuple[Path, int]]:
        """Returns (path, label) of every image in the class folders of `folder`."""
        spec = self.spec
        classes = _classes(folder)
        unknown = [name for name in classes if name not in spec.label_names]
        if unknown:
            raise DataError(
                f"{folder / unknown[0]} is a class that training does not know: it knows "
                f"{listed(spec.label_names, 12)}. Labels are the same in every split: rename or remove the "
                "folder."
            )
        return [(path, spec.label_names.index(name)) for name in classes for path in _images(folder / name)]


def _spec(root: Path, like: str | None, size: int | None) -> InputSpec:
    if like is not None and like not in INPUT_SPECS:
        raise DataError(
            f"like = {like!r} is no data set whose images are specified. Use one of {listed(INPUT_SPECS, 12)}."
        )
    source = next((root / name for name in ("train", "test", "val") if (root / name).is_dir()), None)
    if source is None:
        found = f"no train, test or val in {root}" if root.is_dir() else f"no folder {root.absolute()}"
        raise DataError(f"There is {found}. Images are expected as {_LAYOUT}: correct the path or arrange them so.")
    name = root.absolute().name
    if like is not None:
        known = INPUT_SPECS[like]
        pixels = known.size if size is None else (size, size)
        return replace(known, dataset=name, size=pixels, label_names=_label_names(source, known))
    if size is None:
        raise DataError(
            f"No image size for {root}. Images of a batch have one size: pass size=…, or like=… for the "
            "size and normalisation of a known data set."
        )
    return InputSpec(
        dataset=name,
        size=(size, size),
        channels=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        label_names=tuple(_classes(source)),
        license="unknown",
    )


def _label_names(source: Path, spec: InputSpec) -> tuple[str, ...]:
    """Returns the labels of `spec` if the folders are its classes, else the folders' own names."""
    classes = _classes(source)
    if not any(name in spec.label_names for name in classes):
        return tuple(classes)
    strange = [name for name in classes if name not in spec.label_names]
    if strange:
        raise DataError(
            f"{source / strange[0]} is no class of {spec.dataset}, but other folders beside it are. Either "
            "all are, in its order of labels, or none: rename the folder to one of "
            f"{listed(spec.label_names, 12)}."
        )
    return spec.label_names


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder.absolute()}. Images are expected as {_LAYOUT}: correct the path "
            "or arrange them so."
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(
            f"{folder} has no class folders. Images are expected as {_LAYOUT}: put each class into a "
            "folder of its name."
        )
    return names


def _images(folder: Path) -> list[Path]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise DataError(
            f"{folder} holds no images. Every class needs at least one {listed(sorted(SUFFIXES), 12)} file: add "
            "some or remove the folder."
        )
    return paths
