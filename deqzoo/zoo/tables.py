"""Tables in files: CSV and Markdown."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


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


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of equal length, header first, as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def as_text(cell: str) -> str:
    """Returns text that Markdown shows as it is, in one line."""
    cell = " ".join(cell.split())
    for sign in ("\\", "|", "<", "*", "_", "`"):
        cell = cell.replace(sign, "\\" + sign)
    return cell
