"""Which group a channel belongs to, by its name."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netfit.errors import ConfigError, did_you_mean

__all__ = ["GroupBy", "describe", "grouper", "labels_of"]

GroupBy = str | Mapping[str, str] | Callable[[str], str | None] | Sequence[Any] | None
ALL = "all"  # the one group there is without grouping
_LABEL = re.compile(r"(?:^|[{,;\s])([A-Za-z_][\w.]*)=\"?([^,;}\"]*)\"?")


def labels_of(column: str) -> dict[str, str]:
    """Labels in a channel's name.

    >>> labels_of("rack=r1,metric=cpu"), labels_of('load{job="node",instance="a:1"}')
    ({'rack': 'r1', 'metric': 'cpu'}, {'job': 'node', 'instance': 'a:1', '__name__': 'load'})
    """
    found = {key: value.strip() for key, value in _LABEL.findall(column)}
    if "{" in column and not column.startswith("{"):
        found["__name__"] = column.partition("{")[0]
    return found


def grouper(group_by: GroupBy) -> Callable[[str], str | None]:
    """A function from a channel's name to its group; None leaves the channel out.

    Args:
        group_by: a label of names like ``"rack=r1,metric=cpu"`` or ``'load{job="node"}'``, a regular expression with
            a named group, a mapping, a function, or a sequence of those (joined by "/"); None puts all into one group.

    Raises:
        ConfigError: it is none of these, or a pattern that does not compile or names no group.

    >>> by = grouper(["rack", "metric"])
    >>> by("rack=r1,node=n7,metric=cpu"), by("cpu"), grouper(r"(?P<rack>r[0-9]+)-.*")("r3-n1")
    ('r1/cpu', None, 'r3')
    """
    if group_by is None:
        return lambda _: ALL
    if callable(group_by):
        return group_by
    if isinstance(group_by, Mapping):
        return group_by.get
    if isinstance(group_by, str):
        return _by_pattern(group_by) if "(" in group_by or "\\" in group_by else _by_label(group_by)
    if not isinstance(group_by, Sequence) or not group_by:
        raise ConfigError(f"group_by={group_by!r}: give a label, a pattern with (?P<name>...), a mapping or a function")
    parts = [grouper(part) for part in group_by]

    def joined(column: str) -> str | None:
        found = [part(column) for part in parts]
        return None if None in found else "/".join(map(str, found))

    return joined


def describe(group_by: GroupBy) -> Any:
    """What a saved state says about its grouping; functions by their name."""
    if group_by is None or isinstance(group_by, str):
        return group_by
    if isinstance(group_by, Mapping):
        return {"mapping": dict(group_by)}
    if callable(group_by):
        return f"function {getattr(group_by, '__qualname__', type(group_by).__name__)}"
    return [describe(part) for part in group_by]


def no_match(group_by: GroupBy, columns: Sequence[str]) -> ConfigError:
    """The error of a grouping that fits no column."""
    known = {label for column in columns[:1000] for label in labels_of(column)}
    hint = did_you_mean(group_by, known) if isinstance(group_by, str) and known else "the names hold no such labels"
    return ConfigError(
        f"group_by={describe(group_by)!r} fits none of {len(columns)} columns such as {columns[0]!r}; {hint}"
    )


def _by_label(label: str) -> Callable[[str], str | None]:
    return lambda column: labels_of(column).get(label)


def _by_pattern(text: str) -> Callable[[str], str | None]:
    try:
        pattern = re.compile(text)
    except re.error as e:
        raise ConfigError(f"group_by={text!r} is no regular expression: {e}") from e
    if not pattern.groupindex:
        raise ConfigError(f"group_by={text!r} names no group: write (?P<rack>...) around the part that tells")

    def group(column: str) -> str | None:
        match = pattern.search(column)
        return "/".join(v for v in match.groupdict().values() if v is not None) if match else None

    return group
