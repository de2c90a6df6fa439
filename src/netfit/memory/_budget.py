"""Budgets: reading them, and saying why one cannot be met."""

import re
from collections.abc import Mapping

from netfit.errors import ConfigError, JobError

__all__ = ["BudgetError", "limit_of", "megabytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class BudgetError(JobError):
    """No allowed way of keeping the activations makes a training step fit; the message itemises the least it takes."""

    @classmethod
    def below(cls, budget: int, floor: int, parts: Mapping[str, int], max_grad_error: float) -> "BudgetError":
        """The error for a budget below the floor.

        Args:
            budget: bytes that were asked for.
            floor: least peak in bytes.
            parts: what it is made of, in bytes.
            max_grad_error: error up to which activations were compressed.
        """
        listed = " + ".join(f"{name} {megabytes(n)}" for name, n in parts.items() if n)
        least = megabytes(floor)
        return cls(
            f"{megabytes(budget)} is below the floor {least} ({listed}) at a gradient error of at most "
            f"{max_grad_error:g}; nearest feasible budget: {least}; or allow a larger error or a smaller batch"
        )


def megabytes(nbytes: float) -> str:
    """Bytes for people.

    >>> megabytes(28_800_000), megabytes(2.5e9)
    ('28.8 MB', '2.50 GB')
    """
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def limit_of(budget: str | float, peak: int) -> int:
    """Bytes of a budget: a number of them, ``"2GB"``, ``"512MiB"``, or a part of the peak, ``0.5``.

    Raises:
        ConfigError: it is none of these.

    >>> limit_of("2GB", 0), limit_of(0.5, 1000), limit_of("0.5", 1000)
    (2000000000, 500, 500)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", str(budget), re.IGNORECASE)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) <= 0:
        raise ConfigError(f"budget {budget!r}: give bytes such as 2GB or 512MiB, or a part of the peak such as 0.5")
    number = float(found[1])
    return round(number * peak) if number < 1 and not found[2] else round(number * unit)
