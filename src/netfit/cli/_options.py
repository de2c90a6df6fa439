"""Options that several commands share, and the reading of those that hold several values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from netfit.errors import ConfigError, did_you_mean

__all__ = [
    "AnyPolicy",
    "Classes",
    "Count",
    "InShape",
    "Json",
    "Model",
    "Original",
    "PolicyFile",
    "Seed",
    "shape",
    "words",
]

Model = Annotated[
    str,
    Parameter(
        help="Built-in name (see netfit models), package.module:factory, file.py:factory, or the folder of a saved "
        "network. Naming a factory runs its code."
    ),
]
Original = Annotated[str | None, Parameter(help="Factory of your own network that a saved MODEL was made from.")]
AnyPolicy = Annotated[
    str,
    Parameter(
        help="Policy file (TOML or JSON), a classic method (uniform-int8, uniform-w4a8, magnitude ...), or RUN#TRIAL "
        "for what a trial of a compress run tried."
    ),
]
PolicyFile = Annotated[Path, Parameter(help="Policy file, TOML or JSON.")]
InShape = Annotated[
    str | None, Parameter(help="Shape of one input without the batch, such as 3,32,32; needed for your own networks.")
]
Classes = Annotated[int | None, Parameter(help="Outputs; the network's own number by default.")]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Seed = Annotated[int, Parameter(help="Seed of every random draw.")]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Print the result as JSON only.")]


def shape(text: str | None) -> tuple[int, ...] | None:
    """Read ``3,32,32`` or ``3x32x32``.

    Raises:
        ConfigError: it is no list of positive sizes.

    >>> shape("3,32,32"), shape("16")
    ((3, 32, 32), (16,))
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise ConfigError(f"--in-shape {text!r} must be sizes of one input without the batch, such as 3,32,32")
    return tuple(int(part) for part in parts)


def words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read a comma-separated choice.

    Raises:
        ConfigError: a word is unknown, given twice, or there is none.

    >>> words("--methods", "prune, quantize", ["prune", "quantize"])
    ('prune', 'quantize')
    """
    found = tuple(part.strip() for part in text.split(","))
    for word in found:
        if word not in known:
            raise ConfigError(f"{option} {text!r}: unknown {word!r}; {did_you_mean(word, known)}")
    if len(set(found)) != len(found):
        raise ConfigError(f"{option} {text!r} names one twice")
    return found
