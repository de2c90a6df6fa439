"""What a simulated or replayed schedule did, and when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from netfit import io

from ._costs import FloatArray, StageCosts
from ._flat import Flat, IntArray
from ._memory import memory_curve
from ._network import Network
from ._path import PathPart, trace_back
from ._schedule import Schedule
from ._trace import chrome_trace

__all__ = ["Timeline"]


@dataclass(frozen=True, eq=False)
class Timeline:
    """One run of a schedule; every array has one entry per operation, row by row, step by step.

    Attributes:
        schedule, costs, network, steps: what ran.
        start, end: seconds.
        arrival: when the message an operation reads was there, 0 for none.
        sent: when that message began to occupy its wire, NaN for a hand-over on one device.
        step: training step.
    """

    schedule: Schedule
    costs: StageCosts
    network: Network | None
    steps: int
    flat: Flat
    step: IntArray
    start: FloatArray
    end: FloatArray
    arrival: FloatArray
    sent: FloatArray

    @cached_property
    def _device(self) -> IntArray:
        return np.tile(self.flat.device, self.steps)

    @cached_property
    def _rows(self) -> list[IntArray]:
        """Operations of every device in the order they ran."""
        return [np.flatnonzero(self._device == d) for d in range(self.schedule.devices)]

    @cached_property
    def _producer(self) -> IntArray:
        """The operation whose result each one reads, -1 for none."""
        per_step = np.tile(self.flat.producer, self.steps)
        return np.where(per_step < 0, -1, per_step + self.step * len(self.flat.ops))

    @cached_property
    def _second(self) -> IntArray:
        """The later operation of every pair; it starts and ends with the one before it."""
        return np.flatnonzero(np.tile(self.flat.paired, self.steps)) + 1

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return float(self.end.max() - self.start.min())

    @property
    def step_s(self) -> float:
        """Seconds of one step when many follow each other; the makespan when only one ran."""
        if self.steps == 1:
            return self.makespan
        first, last = (float(self.end[self.step == s].max()) for s in (0, self.steps - 1))
        return (last - first) / (self.steps - 1)

    @property
    def device_span(self) -> float:
        """Longest time that one device spends between the start and the end of its part of the first step."""
        first = [row[self.step[row] == 0] for row in self._rows]
        return max(float(self.end[row].max() - self.start[row].min()) for row in first if len(row))

    @cached_property
    def busy(self) -> FloatArray:
        """Seconds every device computes, ``(devices,)``."""
        seconds = self.end - self.start
        seconds[self._second] = 0.0
        return np.bincount(self._device, seconds, self.schedule.devices).astype(np.float64)

    @property
    def bubble(self) -> float:
        """Share of all device time that is idle."""
        return float(1.0 - self.busy.sum() / (self.schedule.devices * self.makespan))

    @cached_property
    def exposed_s(self) -> FloatArray:
        """Seconds every device waits for nothing but messages under way, ``(devices,)``.

        A wait counts from the moment the sender had finished computing: before that the device would have been idle
        on a free network too.
        """
        ready = np.where(self._producer >= 0, self.end[self._producer], 0.0)
        ready[self._second - 1] = np.maximum(ready[self._second - 1], ready[self._second])
        exposed = np.zeros(self.schedule.devices)
        for d, row in enumerate(self._rows):
            free = np.concatenate([[0.0], self.end[row]])[: len(row)]
            exposed[d] = np.maximum(self.start[row] - np.maximum(free, ready[row]), 0.0).sum()
        return exposed

    @cached_property
    def static_bytes(self) -> FloatArray:
        """Weights, gradients and optimizer state of every device, ``(devices,)``."""
        each = self.costs.weight_bytes + self.costs.grad_bytes + self.costs.optimizer_bytes
        held = np.zeros(self.schedule.devices)
        for replica in self.schedule.placement:
            np.add.at(held, np.array(replica), each)
        return held

    @cached_property
    def memory(self) -> list[tuple[FloatArray, FloatArray]]:
        """Activations of every device over time: (seconds, bytes from then on)."""
        return memory_curve(self.flat, self.costs, self.start, self.end, self._rows)

    @property
    def activation_peak(self) -> FloatArray:
        """Most activations every device keeps at once, in the unit of ``activation_bytes``, ``(devices,)``."""
        return np.array([curve.max(initial=0.0) for _, curve in self.memory])

    @property
    def peak_bytes(self) -> FloatArray:
        """Most memory every device needs, ``(devices,)``."""
        return self.static_bytes + self.activation_peak

    def critical_path(self) -> list[PathPart]:
        """What the makespan consists of: operations, messages and blocked sends, one after the other in time."""
        return trace_back(self, self._rows, self._producer, set(self._second.tolist()))

    def events(self) -> list[dict[str, Any]]:
        """One plain row per operation, in order of start."""
        order = np.argsort(self.start, kind="stable").tolist()
        n = len(self.flat.ops)
        return [
            {
                "device": int(self._device[i]), **self.flat.ops[i % n]._asdict(), "step": i // n,
                "start": float(self.start[i]), "end": float(self.end[i]),
            }
            for i in order
        ]  # fmt: skip

    def drawing(self) -> dict[str, Any]:
        """What the report draws, as JSON values: bars of every device and its activations over time.

        A pair is one bar of kind ``P``.
        """
        second, n = set(self._second.tolist()), len(self.flat.ops)
        bars = []
        for i, (start, end) in enumerate(zip(self.start.tolist(), self.end.tolist(), strict=True)):
            op = self.flat.ops[i % n]
            if i not in second:
                bars.append([int(self._device[i]), "P" if op.paired else op.kind, op.stage, op.microbatch, start, end])
        memory = [[seconds.tolist(), stored.tolist()] for seconds, stored in self.memory]
        return {
            "schedule": self.schedule.label,
            "devices": self.schedule.devices,
            "makespan_s": self.makespan,
            "bars": bars,
            "memory": memory,
        }

    def to_chrome_trace(self, path: str | Path) -> Path:
        """Write a trace that Perfetto and chrome://tracing open: devices, links and memory.

        Raises:
            ArtifactError: the file cannot be written.
        """
        io.write_json(path, chrome_trace(self, self._device, self._producer))
        return Path(path)
