"""What was compared before a recipe was settled: a table of its author's, beside the run and in the release."""

import csv
from collections.abc import Sequence
from pathlib import Path

from deqzoo.errors import WeightsError
from deqzoo.zoo.tables import as_text, markdown_table

TRIED_FILE = "tried.csv"


def read_tried(path: Path) -> list[list[str]]:
    """Returns the cells of a table, header first, none where there is no such file.

    Raises:
        WeightsError: if it is no CSV, has nothing below a header, or rows of other lengths than that.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it, too
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (csv.Error, UnicodeError) as error:
        raise WeightsError(
            f"{path} is no CSV: {error}. Save it as text in UTF-8, with commas between cells."
        ) from error
    if len(rows) < 2:
        raise WeightsError(f"{path} has no rows below a header. It tells what was compared: fill it, or remove it.")
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise WeightsError(
            f"{path} has rows of {widths} cells. All have as many as the header: put cells that hold commas in quotes."
        )
    return rows


def write_tried(rows: Sequence[Sequence[str]], folder: Path) -> None:
    """Writes the table of a release, or removes an older one if there is none."""
    path = folder / TRIED_FILE
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def tried_section(folder: Path) -> str | None:
    """Returns the section of a card, None where a release has no such table.

    Raises:
        WeightsError: if the table is damaged.
    """
    rows = read_tried(folder / TRIED_FILE)
    if not rows:
        return None
    told = f"Before the recipe was settled, as its author noted it down ({TRIED_FILE} in the release):"
    return f"## What was tried\n\n{told}\n\n" + markdown_table([[as_text(cell) for cell in row] for row in rows])
