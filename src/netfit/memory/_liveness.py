"""Which saved tensors are alive when, and what else is: the two parts of a step's memory over time."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._compress import CodecPolicy, Watch, read_policy
from ._convolution import written_over
from ._inventory import Inventory
from ._saver import Observer
from ._step import TrainingStep, undisturbed
from ._timeline import Timeline, record
from .codecs import Packed

__all__ = ["Liveness", "liveness"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Liveness:
    """Memory of a step between any two events at which a tensor is saved or read back.

    Args:
        other: most bytes in each interval that no saved tensor accounts for, (intervals,).
        alive: whether the graph holds a storage in an interval, (intervals, storages).
        reading: whether the interval begins with reading it back, (intervals, storages), so that a packed tensor is
            there twice, once packed and once not, and one that is kept only once.
    """

    other: Floats
    alive: NDArray[np.bool_]
    reading: NDArray[np.bool_]


class _Marks(Observer):
    """Marks in the profile: ``netfit + <row>`` when a tensor is saved, ``netfit - <row>`` when it is read."""

    def __init__(self) -> None:
        self._rows = 0
        self._row_of: dict[int, list[int]] = {}
        self._alive: list[Packed] = []  # an id means something only while its object lives

    def packed(self, t: Tensor, packed: Packed) -> None:
        """A row of the inventory."""
        self._row_of.setdefault(id(packed), []).append(self._rows)
        self._alive.append(packed)
        self._rows += 1
        with torch.profiler.record_function(f"netfit + {self._rows - 1}"):
            pass

    def unpacked(self, packed: Packed) -> None:
        """The last row not read yet that shares it: autograd reads in reverse."""
        rows = self._row_of[id(packed)]
        row = rows.pop() if len(rows) > 1 else rows[0]
        with torch.profiler.record_function(f"netfit - {row}"):
            pass


def liveness(step: TrainingStep, found: Inventory, kept: Floats, policy: CodecPolicy, seed: int) -> Liveness:
    """Follow one step whose tensors are kept small, so that what they would be can be added.

    Args:
        step: run forward and backward once, without an update.
        found: inventory of the same step; its rows are met again in the same order.
        kept: bytes that `policy` keeps of each storage, (storages,).
        policy: how tensors are kept meanwhile.
        seed: of random rounding.
    """
    marks = _Marks()
    watch = Watch(step.model, read_policy(policy), seed, marks)

    def work() -> None:
        step.loss().backward()

    with undisturbed(step):
        try:
            for parameter in step.model.parameters():
                parameter.grad = None
            timeline = record(work, step.inputs[0].device.type)
        finally:
            watch.remove()
    return _intervals(timeline, found, kept)


def _intervals(timeline: Timeline, found: Inventory, kept: Floats) -> Liveness:
    rows = [row for row in found.rows if row.kind != "(loss)"]
    events = [(ns, label.split()[1], int(label.split()[2])) for label, ns in timeline.marks if label[7:8] in "+-"]
    times = np.array([0, *(ns for ns, _, _ in events)], dtype=np.int64)
    n, storages = len(times), len(kept)
    change = np.zeros((n + 1, storages), dtype=np.int32)
    reading = np.zeros((n, storages), dtype=bool)
    for i, (_, sign, row) in enumerate(events, 1):
        memory = rows[row].memory
        if sign == "+":
            change[i, memory] += 1
        else:  # released when the node is done, which is before the next one reads
            change[i + 1, memory] -= 1
            reading[i, memory] = not written_over(rows[row].kind, rows[row].nbytes)
    alive = np.cumsum(change[:n], axis=0) > 0
    place = np.searchsorted(times, np.array(timeline.at_ns, dtype=np.int64), side="right") - 1
    peaks = np.zeros(n)
    live = np.array(timeline.live, dtype=np.float64)
    np.maximum.at(peaks, place, live)
    # What is live at a moment stays live until the next event, also across intervals without one.
    before = np.array([timeline.at(int(t)) for t in times], dtype=np.float64)
    peaks = np.maximum(peaks, before)
    return Liveness(np.maximum(peaks - alive @ kept, 0.0), alive, reading)
