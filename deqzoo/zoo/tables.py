"""Tables in files: CSV and Markdown."""

import csv
import re
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


def as_text(words: str) -> str:
    """Returns words that Markdown shows as they are, in one line: in a cell of a table, or as a paragraph."""
    text = re.sub(r"([\\|<*_`\[])", r"\\\1", " ".join(words.split()))
    # At the beginning these would make a heading, a quotation or a list.
    return re.sub(r"^(\d*)(>|(?:#+|[-+.)])(?=\s|$))", r"\1\\\2", text)
