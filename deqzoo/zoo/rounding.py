"""Numbers in words. Rounding never flatters: merits are rounded down, costs up."""

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def at_least(value: float, digits: int = 2) -> str:
    """Returns a number rounded down to `digits` decimals, without trailing zeros."""
    return _rounded(value, digits, ROUND_FLOOR)


def at_most(value: float, digits: int = 2) -> str:
    """Returns a number rounded up to `digits` decimals, without trailing zeros."""
    return _rounded(value, digits, ROUND_CEILING)


def at_least_significant(value: float, digits: int = 2) -> str:
    """Returns a number rounded down to so many significant digits, such as 9.8e-05."""
    return _significant(value, digits, math.floor)


def at_most_significant(value: float, digits: int = 2) -> str:
    """Returns a number rounded up to so many significant digits, such as 9.8e-05."""
    return _significant(value, digits, math.ceil)


def cost(value: float | None, digits: int = 4, *, significant: bool = False) -> str:
    """Returns a figure that is better the smaller it is, to `digits` decimals or to two significant digits."""
    if value is None:
        return "not a number"
    return at_most_significant(value) if significant else at_most(value, digits)


def counted(count: int, noun: str) -> str:
    """Returns a number of things, such as "1 thread" or "2 threads"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _rounded(value: float, digits: int, rounding: str) -> str:
    # Twelve digits first: 100 · 9954 / 10000 is a hair away from what it stands for.
    exact = Decimal(repr(round(value, 12)))
    text = format(exact.quantize(Decimal(1).scaleb(-digits), rounding=rounding), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _significant(value: float, digits: int, whole: Callable[[float], int]) -> str:
    if value == 0:
        return "0"
    scale = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return f"{whole(round(value / scale, 6)) * scale:.{digits - 1}e}"
