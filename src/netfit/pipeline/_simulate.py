"""Event simulation of a schedule: devices run their rows in order, messages queue for their links.

A heap holds the operations under way. They are taken in order of their ends, so messages are handed to the links in
the order in which they become ready, which is what makes first-come-first-served exact also for wires that several
pairs of devices share.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from netfit.errors import ConfigError

from ._costs import FloatArray, StageCosts
from ._flat import Flat, flatten
from ._network import Network
from ._schedule import Schedule
from ._timeline import Timeline
from ._validate import deadlock

__all__ = ["simulate"]


def simulate(schedule: Schedule, costs: StageCosts, network: Network | None = None, steps: int = 1) -> Timeline:
    """Run a schedule with these costs on these links.

    An operation starts when its device is free and its input has arrived. A message occupies its wire for
    bytes / bandwidth and arrives the latency later; messages of one wire queue in the order they become ready. Stages
    of one device hand over for free.

    Args:
        schedule: any table; a deadlock is found, never waited for.
        costs: of as many stages as the schedule has, or a divisor of that.
        network: links between its devices; None for a free one.
        steps: how many training steps run one after the other. A device goes on with the next step when it has done
            its own part of the last one, so several steps show what a single one hides: the steady state.

    Raises:
        ConfigError: sizes do not match, or the table deadlocks (the message names the blocked operations).

    >>> from netfit.pipeline import make
    >>> simulate(make("1f1b", 4, 8), StageCosts.uniform(4)).makespan
    33.0
    """
    costs = costs.for_stages(schedule.stages)
    if steps < 1:
        raise ConfigError(f"steps is {steps}, it must be at least 1")
    if network is not None and network.devices != schedule.devices:
        raise ConfigError(f"the network joins {network.devices} devices, the schedule has {schedule.devices}")
    flat = flatten(schedule)
    return _Run(schedule, flat, costs, network or Network.uniform(schedule.devices), steps).timeline()


class _Run:
    """State of one simulation; plain lists, because single elements of numpy arrays are slow."""

    def __init__(self, schedule: Schedule, flat: Flat, costs: StageCosts, network: Network, steps: int) -> None:
        self.schedule, self.flat, self.costs, self.network, self.steps = schedule, flat, costs, network, steps
        n = len(flat.ops)
        duration = durations(flat, costs)
        offset = np.repeat(np.arange(steps) * n, n)
        tile = lambda links: np.where(np.tile(links, steps) < 0, -1, np.tile(links, steps) + offset)  # noqa: E731
        self.consumer: list[int] = tile(flat.consumer).tolist()
        self.duration: list[float] = np.tile(duration, steps).tolist()
        self.paired: list[bool] = np.tile(flat.paired, steps).tolist()
        self.device: list[int] = np.tile(flat.device, steps).tolist()
        sender = np.where(flat.producer < 0, -1, flat.device[flat.producer])
        self.source: list[int] = np.tile(sender, steps).tolist()  # device that each operation's input comes from
        starts = flat.row_start
        self.rows = [
            [step * n + i for step in range(steps) for i in range(low, high)]
            for low, high in itertools.pairwise(starts)
        ]
        self.transfer, self.latency = (np.tile(a, steps).tolist() for a in messages(flat, costs, network))
        self.waits: list[float] = np.where(tile(flat.producer) < 0, 0.0, math.inf).tolist()  # arrival of the input
        self.at = [0] * len(self.rows)  # next operation of each row
        self.free = [0.0] * len(self.rows)  # infinity while an operation or a blocking send is under way
        self.heap: list[tuple[float, int]] = []  # (end, operation) of those under way
        self.start, self.end = [math.nan] * (n * steps), [math.nan] * (n * steps)
        self.sent = [math.nan] * (n * steps)  # when the message an operation reads began to occupy its wire

    def timeline(self) -> Timeline:
        self._play()
        flat, n = self.flat, len(self.flat.ops)
        array = lambda values: np.array(values, dtype=np.float64)  # noqa: E731
        return Timeline(
            schedule=self.schedule, costs=self.costs, steps=self.steps, flat=flat,
            step=np.repeat(np.arange(self.steps), n), start=array(self.start), end=array(self.end),
            arrival=array(self.waits), sent=array(self.sent), network=self.network,
        )  # fmt: skip

    def _play(self) -> None:
        at, free, heap, device, paired, waits = self.at, self.free, self.heap, self.device, self.paired, self.waits
        consumer, source, blocking = self.consumer, self.source, self.network.send == "blocking"
        pending, held, completing = ([value] * len(at) for value in (0, 0.0, False))  # of blocking sends
        post = self._in_order() if self.network.recv == "in-order" else self._when_needed()
        launch = self._launcher()

        def deliver(reader: int) -> None:
            if blocking:
                sender = source[reader]
                pending[sender] -= 1
                held[sender] = max(held[sender], waits[reader])
                if not pending[sender] and not completing[sender]:
                    free[sender] = held[sender]
                    launch(sender)
            launch(device[reader])

        for d in range(len(at)):
            launch(d)
        while heap:
            now, i = heapq.heappop(heap)
            d = device[i]
            at[d] += 2 if paired[i] else 1
            completing[d], held[d] = True, now
            for j in (i, i + 1) if paired[i] else (i,):
                reader = consumer[j]
                if reader < 0:
                    continue
                if device[reader] == d:
                    waits[reader] = now
                    continue
                pending[d] += blocking
                for done in post(reader, now):
                    deliver(done)
            completing[d] = False
            if not pending[d]:
                free[d] = held[d]
                launch(d)
        if any(a < len(row) for a, row in zip(at, self.rows, strict=True)):
            raise self._blocked(at)

    def _launcher(self) -> Callable[[int], None]:
        """Start the next operation of a device, if the device is free and the operation's input on its way."""
        rows, at, free, heap = self.rows, self.at, self.free, self.heap
        waits, start, end, duration, paired = self.waits, self.start, self.end, self.duration, self.paired

        def launch(d: int) -> None:
            if at[d] >= len(rows[d]) or free[d] == math.inf:
                return
            i = rows[d][at[d]]
            begin = free[d] if free[d] >= waits[i] else waits[i]
            if paired[i] and waits[i + 1] > begin:
                begin = waits[i + 1]
            if begin == math.inf:
                return
            start[i] = begin
            end[i] = stop = begin + duration[i]
            if paired[i]:
                start[i + 1], end[i + 1] = begin, stop
            free[d] = math.inf
            heapq.heappush(heap, (stop, i))

        return launch

    def _when_needed(self) -> Callable[[int, float], Sequence[int]]:
        """Hand a message to its wire as soon as it is ready; returns the operations it arrives at."""
        wires, source, device = self.network.wires(), self.source, self.device
        wire_free = [0.0] * self.network.devices**2
        sent, waits, transfer, latency = self.sent, self.waits, self.transfer, self.latency

        def post(reader: int, ready: float) -> tuple[int]:
            wire = wires[source[reader]][device[reader]]
            begin = ready if ready >= wire_free[wire] else wire_free[wire]
            sent[reader] = begin
            wire_free[wire] = over = begin + transfer[reader]
            waits[reader] = over + latency[reader]
            return (reader,)

        return post

    def _in_order(self) -> Callable[[int, float], Sequence[int]]:
        """Let a device receive only what its row needs next; a ready message behind that one has to wait."""
        hand_over, device, source = self._when_needed(), self.device, self.source
        expected = [deque(i for i in row if source[i] not in (-1, d)) for d, row in enumerate(self.rows)]
        last = [0.0] * len(self.rows)  # arrival of the last message each device received
        ready: dict[int, float] = {}

        def post(reader: int, now: float) -> list[int]:
            ready[reader] = now
            d, done = device[reader], []
            while expected[d] and expected[d][0] in ready:
                first = expected[d].popleft()
                hand_over(first, max(ready.pop(first), last[d]))
                last[d] = self.waits[first]
                done.append(first)
            return done

        return post

    def _blocked(self, at: list[int]) -> ConfigError:
        n = len(self.flat.ops)
        position = [row[a] % n if a < len(row) else self.flat.row_start[d + 1]
                    for d, (row, a) in enumerate(zip(self.rows, at, strict=True))]  # fmt: skip
        finished = [not math.isnan(end) for end in self.end[:n]]
        return deadlock(self.flat, position, finished)


def durations(flat: Flat, costs: StageCosts) -> FloatArray:
    """Seconds of every operation; a pair's first operation holds the time of both."""
    seconds = np.stack([costs.t_f, costs.t_b, costs.t_w, costs.t_x])[flat.kind, flat.stage]
    first = np.flatnonzero(flat.paired)
    seconds[first] = costs.overlap * (seconds[first] + seconds[first + 1])
    return seconds


def messages(flat: Flat, costs: StageCosts, network: Network) -> tuple[FloatArray, FloatArray]:
    """Seconds on the wire and latency of the message that every operation reads; 0 for one that reads none."""
    reads = np.flatnonzero(flat.producer >= 0)
    source, to = flat.device[flat.producer[reads]], flat.device[reads]
    cut = np.minimum(flat.stage[reads], flat.stage[flat.producer[reads]])
    transfer, latency = np.zeros(len(flat.ops)), np.zeros(len(flat.ops))
    transfer[reads] = costs.boundary_bytes[cut] / network.bytes_per_s[source, to]
    latency[reads] = network.latency_s[source, to]
    return transfer, latency
