"""Reading text files, and finding the parts of a data set among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from deqzoo.errors import DataError, listed

Part: TypeAlias = Literal["train", "val", "test", "all"]
"""Of a text; "all" is everything that belongs to it."""

_NAMES = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}


def read_text(path: Path) -> str:
    """Returns the text in a UTF-8 file, with line ends as newlines.

    Raises:
        DataError: if it is missing, empty or not a text.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path.absolute()} could not be read: {error.strerror or error}. A text is a file, or a folder of "
            "*train*, *valid* and *test* files: correct the path."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text: byte {error.start:,} is not UTF-8. Texts are UTF-8 files: convert it, or choose "
            "another file."
        ) from error
    if "\0" in text:
        raise DataError(f"{path} is no text: it holds zero bytes. Texts are UTF-8 files: choose another file.")
    if not text:
        raise DataError(f"{path} is empty. A text has two tokens at least: choose another file.")
    return text


def read_all(paths: Sequence[Path]) -> str:
    """Returns the texts of files, one after the other, each beginning a line.

    Raises:
        DataError: if one is missing, empty or not a text.
    """
    texts = list(map(read_text, paths))
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts[:-1]) + texts[-1]


def part_files(folder: Path) -> dict[Part, Path]:
    """Returns the files of the parts "train", "val" and "test" in a folder, as far as there are any.

    Raises:
        DataError: if there are none, or several for one part.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found: dict[Part, Path] = {}
    for part, names in _NAMES.items():
        those = [path for path in files if any(name in path.name.lower() for name in names)]
        if len(those) > 1:
            raise DataError(
                f"{folder} has several files for {part}: {listed([path.name for path in those], 4)}. Each part is one "
                "file: name the text's files themselves instead of their folder, or move the others away."
            )
        if those:
            found[part] = those[0]  # pyright: ignore[reportArgumentType]
    if not found:
        raise DataError(
            f"{folder} has no files with train, valid or test in their names. They are the parts of a text: rename "
            "them, or name a file, which is cut into parts."
        )
    return found


def cut_text(text: str, share: float, *, at_lines: bool) -> tuple[str, str]:
    """Returns the first and the last part of a text.

    Args:
        text: to cut.
        share: of the characters that the last part gets, from 0 to 1. Its beginning is rounded down.
        at_lines: whether the last part begins with a line, then perhaps a little earlier.
    """
    place = int(len(text) * (1 - share))
    if at_lines:
        place = text.rfind("\n", 0, place) + 1
    return text[:place], text[place:]
