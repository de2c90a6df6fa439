"""The critical path: from the last operation back to the first, through whatever each one waited for."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from ._flat import IntArray
from ._schedule import Op

if TYPE_CHECKING:
    from ._timeline import Timeline

__all__ = ["PathPart", "trace_back"]


class PathPart(NamedTuple):
    """A piece of the critical path.

    Attributes:
        what: ``compute``, ``message`` (queueing for its wire included) or ``blocked`` by a send.
        op: the operation; of a message, the one that reads it.
        device: where it runs or arrives.
        start, end: seconds.
    """

    what: Literal["compute", "message", "blocked"]
    op: Op
    device: int
    start: float
    end: float


def trace_back(timeline: Timeline, rows: list[IntArray], producer: IntArray, second: set[int]) -> list[PathPart]:
    """Parts in order of time; each begins where the one before ends."""
    n = len(timeline.flat.ops)
    start, end, arrival = timeline.start, timeline.end, timeline.arrival
    before = {int(b): int(a) for row in rows for a, b in itertools.pairwise(row)}
    parts: list[PathPart] = []

    def part(what: Literal["compute", "message", "blocked"], i: int, begin: float, stop: float) -> None:
        parts.append(PathPart(what, timeline.flat.ops[i % n], int(timeline.flat.device[i % n]), begin, stop))

    i = int(end.argmax())
    while True:
        if i in second:
            i -= 1
        begin = float(start[i])
        part("compute", i, begin, float(end[i]))
        if begin <= 0.0:
            break
        inputs = [j for j in (i, i + 1) if j == i or j in second]
        late = next((j for j in inputs if arrival[j] == begin and not math.isnan(timeline.sent[j])), None)
        previous = before.get(i)
        if previous is not None and end[previous] == begin:
            i = previous
        elif late is not None:
            part("message", late, float(end[producer[late]]), begin)
            i = int(producer[late])
        elif previous is not None and (timeline.network is None or timeline.network.send == "blocking"):
            part("blocked", previous, float(end[previous]), begin)
            i = previous
        else:
            break
    return parts[::-1]
