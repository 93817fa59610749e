"""weights.json: which names have weights, where those lie, and the SHA-256 that they must have."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published weights of one name.

    Attributes:
        source: "embedded" in this package, or on the "hub".
        sha256: of the file of weights.
        size: of that file in bytes.
        repo: "org/name" on the Hub.
        revision: the commit there.
        results: measured figures.
    """

    source: Literal["embedded", "hub"]
    sha256: str
    size: int
    repo: str | None = None
    revision: str | None = None
    results: dict[str, Any] = field(default_factory=dict)


def published(name: str) -> Published | None:
    """Returns what is known of the weights of a canonical name, None if it has none."""
    found = _read().get(name)
    return None if found is None else Published(**found)


def embedded_folder(name: str) -> Path:
    """Returns the folder in this package for the weights of a canonical name."""
    return _FOLDER / "weights" / name


def register_weights(name: str, record: Published) -> None:
    """Puts the weights of a name into the manifest, in place of those it had."""
    manifest = _read()
    manifest[name] = {k: v for k, v in asdict(record).items() if v is not None}
    _path().write_text(json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8")


def _path() -> Path:
    return _FOLDER / "weights.json"


def _read() -> dict[str, dict[str, Any]]:
    return json.loads(_path().read_text("utf-8"))
