"""Live memory over a piece of work: the allocations that torch's profiler saw, replayed."""

import os
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Timeline", "record"]


@dataclass(frozen=True)
class Timeline:
    """Bytes above those at the start, after every allocation and release.

    Attributes:
        at_ns: when.
        live: bytes from then on.
        marks: name and time of each `torch.profiler.record_function` whose name begins with ``"netfit"``.
    """

    at_ns: tuple[int, ...]
    live: tuple[int, ...]
    marks: tuple[tuple[str, int], ...]

    @property
    def peak(self) -> int:
        """Most bytes at once."""
        return max(self.live, default=0)

    def at(self, ns: int) -> int:
        """Bytes just before a moment."""
        i = bisect_left(self.at_ns, ns)
        return self.live[i - 1] if i else 0

    def mark(self, name: str) -> int | None:
        """Bytes at the first mark of a name, None when there is none."""
        found = next((ns for label, ns in self.marks if label == name), None)
        return None if found is None else self.at(found)

    def thinned(self, points: int = 240) -> list[tuple[float, int]]:
        """(part of all events, most bytes since the last point): the shape of the curve, peaks included."""
        n = len(self.live)
        width = max(1, -(-n // points))
        return [((i + width / 2) / n, max(self.live[i : i + width])) for i in range(0, n, width)]


def record(work: Callable[[], object], device: str = "cpu") -> Timeline:
    """Run some work once and follow its allocations.

    Args:
        work: what to run.
        device: type of the device whose memory is meant.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it prints two lines a profile
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities, profile_memory=True) as run:
        work()
    kind = torch.device(device).type.upper()
    events = run.profiler.kineto_results.events()
    memory = sorted(
        (e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]" and e.device_type().name == kind
    )
    marks = sorted((e.start_ns(), e.name()) for e in events if e.name().startswith("netfit"))
    live, total = [], 0
    for _, nbytes in memory:
        total += nbytes
        live.append(total)
    return Timeline(tuple(ns for ns, _ in memory), tuple(live), tuple((name, ns) for ns, name in marks))
