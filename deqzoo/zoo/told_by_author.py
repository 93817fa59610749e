"""What the author of a run puts down beside it by hand: it goes along with the weights, and into their card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deqzoo.zoo.remarks import REMARKS_FILE, read_remarks, remarks_section, write_remarks
from deqzoo.zoo.tried import TRIED_FILE, read_tried, tried_section, write_tried

AUTHORS_FILES = (TRIED_FILE, REMARKS_FILE)


@dataclass(frozen=True)
class ToldByAuthor:
    """The files of `AUTHORS_FILES`, each of which may be missing.

    Attributes:
        tried: cells of the table of what was compared before the recipe was settled, header first.
        remarks: paragraphs.
    """

    tried: list[list[str]]
    remarks: list[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Returns what lies in the folder of a release.

        Raises:
            WeightsError: if a file is damaged.
        """
        return cls(tried=read_tried(folder / TRIED_FILE), remarks=read_remarks(folder / REMARKS_FILE))

    @classmethod
    def beside(cls, checkpoint: Path) -> Self:
        """Returns what lies beside a checkpoint, or in the nearer of the two folders above. Raises as `read` does."""
        here = checkpoint.absolute().parent
        folders = (here, *here.parents[:2])
        return cls(
            tried=next((found for folder in folders if (found := read_tried(folder / TRIED_FILE))), []),
            remarks=next((found for folder in folders if (found := read_remarks(folder / REMARKS_FILE))), []),
        )

    def write(self, folder: Path) -> None:
        """Writes the files of a release, and removes those of an earlier one that has others."""
        write_tried(self.tried, folder)
        write_remarks(self.remarks, folder)


def authors_sections(folder: Path) -> tuple[str | None, ...]:
    """Returns the sections of a card, None for those that a release has nothing for.

    Raises:
        WeightsError: if a file is damaged.
    """
    return tried_section(folder), remarks_section(folder)
