"""Numbers as a reader wants them: three significant digits, a unit, and a dash where nothing was recorded."""

import math
from collections.abc import Callable

__all__ = ["MISSING", "change", "count", "digits", "each", "percent", "points", "seconds", "size", "whole", "yes_no"]

MISSING = "–"


def digits(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes.

    >>> digits(0.25), digits(1234.5), digits(12.34), digits(3e-7)
    ('0.250', '1234', '12.3', '3e-07')
    """
    if value == 0 or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def seconds(value: float) -> str:
    """
    >>> seconds(0.00182), seconds(4.2e-05), seconds(90)
    ('1.82 ms', '42.0 µs', '90.0 s')
    """
    return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def count(value: float) -> str:
    """
    >>> count(40_810_000), count(272474), count(12)
    ('40.8 M', '272 k', '12')
    """
    if abs(value) < 1000:
        return f"{value:g}"
    return _scaled(value, (("G", 1e9), ("M", 1e6), ("k", 1e3)))


def size(value: float) -> str:
    """Bytes in decimal units.

    >>> size(1_090_000), size(512)
    ('1.09 MB', '512 B')
    """
    if abs(value) < 1000:
        return f"{value:g} B"
    return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


def percent(value: float) -> str:
    """
    >>> percent(0.9172), percent(0.75)
    ('91.72 %', '75.00 %')
    """
    return f"{100 * value:.2f} %"


def points(difference: float) -> str:
    """A difference of two percentages.

    >>> points(-0.0042), points(0.01)
    ('−0.42 points', '+1.00 points')
    """
    return f"{100 * difference:+.2f} points".replace("-", "−")


def change(before: float | None, after: float | None) -> str:
    """How many times as much.

    >>> change(40.0, 10.0)
    '× 0.250'
    """
    return each(lambda x: f"× {digits(x)}", after / before if before and after is not None else None)


def whole(value: int | None) -> str:
    """A number to count with, or a dash."""
    return MISSING if value is None else str(value)


def yes_no(value: bool | None) -> str:
    """A flag, or a dash."""
    return MISSING if value is None else "yes" if value else "no"


def each(form: Callable[[float], str], value: float | None) -> str:
    """``form(value)``, or a dash for a value that is missing or no number."""
    return MISSING if value is None or not math.isfinite(value) else form(value)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, scale = next((u for u in units if abs(value) >= u[1]), units[-1])
    return f"{digits(value / scale)} {unit}"
