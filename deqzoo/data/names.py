"""Names of data sets as people type them."""

import difflib
import re
from collections.abc import Mapping
from typing import TypeVar

Named = TypeVar("Named")


def by_name(text: str, known: Mapping[str, Named]) -> Named | None:
    """Returns what is called `text`, in any spelling; None for other names and for paths, such as ./mnist."""
    if re.search(r"[./\\]", text):
        return None
    return {_plain(name): found for name, found in known.items()}.get(_plain(text))


def hint(text: str, known: Mapping[str, object]) -> str:
    """Returns a question after the nearest name, with a space behind it, or nothing if none is near."""
    near = difflib.get_close_matches(text.lower(), known, n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
