"""Which shifts are worth a word: some channels keep off their peers again and again."""

from collections import deque

import numpy as np

from netfit.streaming import State

__all__ = ["Shifts"]

_ROWS, _FREE = 4096, 32


class Shifts:
    """Remembers the shifts of each channel; one is usual if 32 of the last 4096 rows held one as large."""

    def __init__(self) -> None:
        self._past: dict[str, deque[tuple[int, float]]] = {}

    def unusual(self, channel: str, row: int, score: float) -> bool:
        """Take the shift of a channel in a row; rows come in their order."""
        past = self._past.setdefault(channel, deque())
        while past and past[0][0] <= row - _ROWS:
            past.popleft()
        as_large = sum(other >= score for _, other in past)
        past.append((row, score))
        return as_large < _FREE

    def state(self) -> State:
        """What a restart needs."""
        return {str(i): {"channel": s, "past": np.array(p, np.float64)} for i, (s, p) in enumerate(self._past.items())}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._past = {
            part["channel"]: deque((int(row), score) for row, score in part["past"].tolist()) for part in state.values()
        }
