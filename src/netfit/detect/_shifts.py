"""Which shifts are worth a word: some channels keep off their peers again and again."""

from collections import deque

import numpy as np

from netfit.streaming import State

__all__ = ["Shifts"]

_ROWS, _FREE = 4096, 32


class Shifts:
    """Remembers the shifts of each subject; one is usual if 32 of the last 4096 rows held one as large."""

    def __init__(self) -> None:
        self._past: dict[str, deque[tuple[int, float]]] = {}

    def unusual(self, subject: str, row: int, score: float) -> bool:
        """Take the largest shift of a subject in a row; to be called once for each, in the order of rows."""
        past = self._past.setdefault(subject, deque())
        while past and past[0][0] <= row - _ROWS:
            past.popleft()
        as_large = sum(other >= score for _, other in past)
        past.append((row, score))
        return as_large < _FREE

    def state(self) -> State:
        """What a restart needs."""
        return {str(i): {"subject": s, "past": np.array(p, np.float64)} for i, (s, p) in enumerate(self._past.items())}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._past = {
            part["subject"]: deque((int(row), score) for row, score in part["past"].tolist()) for part in state.values()
        }
