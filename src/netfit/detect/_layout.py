"""Where each channel is kept: slots sorted by group and name, whatever the order and number of columns of a call.

The order of slots does not depend on the order in which columns come, so it never shows in a result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.detect._frame import check_columns
from netfit.detect._groups import GroupBy, grouper, no_match
from netfit.errors import ConfigError

__all__ = ["Layout"]


class Layout:
    """Slots of all channels that are known.

    Args:
        group_by: see `grouper`.

    Attributes:
        keys: (group, name) of each slot, ascending.
        groups: names, ascending.
        offset: int64 (groups + 1,), the slots of each group.
        source: column of the last call for each slot, -1 where it has none.
    """

    def __init__(self, group_by: GroupBy) -> None:
        self._group_by, self._group = group_by, grouper(group_by)
        self._columns: Any = None
        self._known: dict[str, str | None] = {}
        self._set([])

    def __len__(self) -> int:
        return len(self.keys)

    def _set(self, keys: list[tuple[str, str]]) -> None:
        self.keys = keys
        self.groups = sorted({group for group, _ in keys})
        number = {group: i for i, group in enumerate(self.groups)}
        counts = np.bincount([number[group] for group, _ in keys], minlength=len(number)) if keys else np.zeros(0)
        self.offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.source = np.full(len(keys), -1, np.int64)

    def use(self, columns: Sequence[str], unused: Callable[[], NDArray[np.bool_]]) -> NDArray[np.int64] | None:
        """Look up the columns of a call.

        Args:
            columns: names; the same object as in the last call costs nothing.
            unused: which slots hold nothing worth keeping; asked when slots change.

        Returns:
            None when the slots are as they were, else the old slot of each new one (-1 for a new channel).

        Raises:
            ConfigError: a name is there twice or is no text, or none of them has a group.
        """
        if columns is self._columns or (self._columns is not None and _equal(columns, self._columns)):
            self._columns = columns
            return None
        names = list(columns)
        check_columns(names)
        moved = self._admit(names, unused)
        place = {name: i for i, name in enumerate(names)}
        self.source = np.fromiter((place.get(name, -1) for _, name in self.keys), np.int64, len(self.keys))
        self._columns = columns
        return moved

    def _admit(self, names: list[str], unused: Callable[[], NDArray[np.bool_]]) -> NDArray[np.int64] | None:
        for name in names:
            if name not in self._known:
                if not isinstance(name, str):
                    raise ConfigError(f"column {name!r} is {type(name).__name__}, not text: name the channels")
                group = self._group(name)
                self._known[name] = None if group is None else str(group)
        wanted = {(g, n) for n in names if (g := self._known[n]) is not None}
        if names and not wanted:
            raise no_match(self._group_by, names)
        fresh = wanted.difference(self.keys)
        if not fresh:
            return None
        drop = unused()
        kept = [key for key, out in zip(self.keys, drop.tolist(), strict=True) if not out or key in wanted]
        for key in set(self.keys).difference(kept):
            del self._known[key[1]]
        old = {key: slot for slot, key in enumerate(self.keys)}
        self._set(sorted([*kept, *fresh]))
        return np.fromiter((old.get(key, -1) for key in self.keys), np.int64, len(self.keys))

    def state(self) -> dict[str, Any]:
        """Names and groups, JSON-able."""
        return {"keys": [list(key) for key in self.keys]}

    def restore(self, state: Any) -> None:
        """Take the names and groups of a saved state."""
        self._set([(str(group), str(name)) for group, name in state["keys"]])
        self._known = {name: group for group, name in self.keys}
        self._columns = None


def _equal(a: Any, b: Any) -> bool:
    if hasattr(a, "equals"):
        return bool(hasattr(b, "equals") and a.equals(b))
    return type(a) is type(b) and len(a) == len(b) and bool(a == b)
