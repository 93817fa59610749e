"""Whether two runs are of one recipe."""

from collections.abc import Mapping
from typing import Any

_MACHINE = frozenset({"accelerator", "strategy", "devices", "num_nodes", "default_root_dir", "logger"})
_SOURCE = frozenset({"root", "download", "like"})


def first_difference(settings: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Returns the first setting in which two runs differ, its dotted name and both values; None if there is none.

    Seed, machine, and where the data come from are no part of a recipe. A setting that only one of them names is
    passed over: versions of the trainer differ in the defaults that they write out.

    Args:
        settings: of one run, as its config.yaml holds them.
        other: of the other.
    """
    data = [(both.get("data") or {}).get("init_args") for both in (settings, other)]
    sections = (
        ("model", settings.get("model"), other.get("model"), frozenset[str]()),
        ("trainer", settings.get("trainer"), other.get("trainer"), _MACHINE),
        ("data", *data, _SOURCE),
    )
    found = (_difference(one, two, name, but) for name, one, two, but in sections if one and two)
    return next(filter(None, found), None)


def _difference(one: Any, two: Any, where: str, but: frozenset[str] = frozenset()) -> tuple[str, Any, Any] | None:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        parts = [(f"{where}.{key}", one[key], two[key]) for key in one if key in two and key not in but]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        parts = [(f"{where}.{index}", *both) for index, both in enumerate(zip(one, two, strict=True))]
    else:
        return None if one == two else (where, one, two)
    return next(filter(None, (_difference(a, b, name) for name, a, b in parts)), None)
