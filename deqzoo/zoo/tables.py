"""Tables in files: CSV and Markdown."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deqzoo.errors import WeightsError


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path, *, columns: Iterable[str] | None = None) -> None:
    """Writes rows under a header, with empty cells for what a row does not have.

    Args:
        rows: by the names of columns.
        path: of the file.
        columns: in their order; by default as the rows bring them up.
    """
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row) if columns is None else columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[list[str]]:
    """Returns the cells of a table, header first.

    Raises:
        WeightsError: if it is empty, no text, or has rows of other lengths than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (csv.Error, UnicodeError) as error:
        raise WeightsError(
            f"{path} is no CSV: {error}. Save it as text in UTF-8, with a comma between cells."
        ) from error
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise WeightsError(
            f"{path} has rows of {sorted(widths)} cells. A table has a header and as many cells in each row: quote "
            "cells that hold commas."
        )
    return rows


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of equal length, header first, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
