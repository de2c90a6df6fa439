"""A timeline in the Chrome trace format, which Perfetto opens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._flat import IntArray

if TYPE_CHECKING:
    from ._timeline import Timeline

__all__ = ["chrome_trace"]

_DEVICES, _LINKS = 0, 1  # process numbers: one group of tracks each
# Names of the viewer's fixed palette, so that a kind has the same colour in every trace.
_COLOUR = {"F": "thread_state_running", "B": "rail_response", "W": "rail_idle", "X": "rail_animation"}


def chrome_trace(timeline: Timeline, device: IntArray, producer: IntArray) -> dict[str, Any]:
    """Operations as slices of their device, messages as slices of their link, activations as counters."""
    events = _names(timeline)
    n = len(timeline.flat.ops)
    for i in range(len(timeline.start)):
        op = timeline.flat.ops[i % n]
        facts = {"stage": op.stage, "microbatch": op.microbatch, "replica": op.replica, "step": i // n}
        slot = {"pid": _DEVICES, "tid": int(device[i]), "cat": op.kind, "cname": _COLOUR[op.kind], "args": facts}
        events.append(_slice(str(op), float(timeline.start[i]), float(timeline.end[i]), slot))
        if not math.isnan(timeline.sent[i]):
            link = int(device[producer[i]]) * timeline.schedule.devices + int(device[i])
            slot = {"pid": _LINKS, "tid": link, "cat": "message", "args": facts}
            events.append(_slice(f"to {op}", float(timeline.sent[i]), float(timeline.arrival[i]), slot))
    for d, (seconds, stored) in enumerate(timeline.memory):
        for when, value in zip(seconds.tolist(), stored.tolist(), strict=True):
            counter = {"pid": _DEVICES, "ts": when * 1e6, "args": {"activations": value}}
            events.append({"ph": "C", "name": f"activations of device {d}", **counter})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _slice(name: str, start: float, end: float, slot: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "ts": start * 1e6, "dur": (end - start) * 1e6, **slot}


def _names(timeline: Timeline) -> list[dict[str, Any]]:
    p = timeline.schedule.devices
    used = {(d, r) for s in range(1, timeline.schedule.stages) for rep in timeline.schedule.placement
            for d, r in ((rep[s - 1], rep[s]), (rep[s], rep[s - 1])) if d != r}  # fmt: skip
    named = [("process_name", _DEVICES, 0, "devices"), ("process_name", _LINKS, 0, "links")]
    named += [("thread_name", _DEVICES, d, f"device {d}") for d in range(p)]
    named += [("thread_name", _LINKS, a * p + b, f"{a} to {b}") for a, b in sorted(used)]
    return [{"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}} for what, pid, tid, name in named]
