"""What whoever trained weights says of them that no figure tells: paragraphs beside the run and in the release."""

from collections.abc import Sequence
from pathlib import Path

from deqzoo.errors import WeightsError
from deqzoo.zoo.tables import as_text

REMARKS_FILE = "remarks.txt"


def read_remarks(path: Path) -> list[str]:
    """Returns the paragraphs of a text, each in one line; none where there is no such file.

    Raises:
        WeightsError: if it is no text, or empty.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeError as error:
        raise WeightsError(f"{path} is no text: {error}. Save it in UTF-8.") from error
    paragraphs = "\n".join(line.strip() for line in text.splitlines()).split("\n\n")
    remarks = [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]
    if not remarks:
        raise WeightsError(
            f"{path} is empty. It tells what a reader of the card should know, in paragraphs: fill it, or remove it."
        )
    return remarks


def write_remarks(remarks: Sequence[str], folder: Path) -> None:
    """Writes the paragraphs of a release, or removes older ones if there are none."""
    path = folder / REMARKS_FILE
    if not remarks:
        path.unlink(missing_ok=True)
        return
    path.write_text("\n\n".join(remarks) + "\n", "utf-8")


def remarks_section(folder: Path) -> str | None:
    """Returns the section of a card, None where a release has no remarks.

    Raises:
        WeightsError: if they cannot be read.
    """
    remarks = read_remarks(folder / REMARKS_FILE)
    if not remarks:
        return None
    told = f"From whoever trained the weights ({REMARKS_FILE} in the release); no command measures them:"
    return f"## Remarks\n\n{told}\n\n" + "\n".join(f"- {as_text(remark)}" for remark in remarks)
