"""`Roofline`: the least time that operators can take on one core of this machine."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.env import digest
from netfit.errors import ConfigError
from netfit.surgery import Policy
from netfit.workload import Op, TensorSpec

from .._base import DeviceSpec, Target
from .._table import CostTable
from .._traced import traced
from ._peaks import Peaks, measure_peaks

FloatArray = NDArray[np.float64]
_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
_FULL = 32


class Roofline(Target):
    """One core of this machine, by its measured peaks: no implementation of an operator is faster.

    An operator takes at least as long as its arithmetic at the peak of its precision, and as its operands at the
    bandwidth of each memory level they have to come from: weights from where a whole network's worth of data leaves
    them until the next inference, activations from where the operator itself finds room for them. ``time_s`` is the
    longest of these, ``hi_s`` their sum: what a core that overlaps nothing would take.

    Times assume warm caches and operators one after the other; a runtime that fuses a layer with its neighbours may
    beat the sum of their rows, never the row of a layer.

    "Roofline: An Insightful Visual Performance Model" (2009); levels as in "Cache-aware Roofline model" (2014).

    Args:
        peaks: of the core; those of this machine by default, measured at first use and kept.

    >>> from torch import nn, ones
    >>> rates = {"l1": 2e11, "dram": 1e10}
    >>> core = Peaks("a core", {"l1": 1 << 15}, rates, rates, {"fp32": {"vector": 1e11}}, 64, 1e-9, (), {})
    >>> table = Roofline(core).cost(nn.Sequential(nn.Linear(1000, 1000)), ones(1, 1000))
    >>> f"{1e6 * table.time_s[0]:.0f} us: 4 MB of weights, of which L1 keeps 1 %"
    '398 us: 4 MB of weights, of which L1 keeps 1 %'
    """

    kind = "bounded"

    def __init__(self, peaks: Peaks | None = None) -> None:
        self._peaks = peaks

    @property
    def peaks(self) -> Peaks:
        """The roofs.

        Raises:
            TargetUnavailable: they were never measured, and there is no C compiler to do it.
        """
        if self._peaks is None:
            self._peaks = measure_peaks()
        return self._peaks

    @property
    def spec(self) -> DeviceSpec:
        """Peaks of one core; operations of bits count two for each pair."""
        import psutil

        p = self.peaks
        flops = {precision: p.best(precision) for precision in p.ops}
        return DeviceSpec(p.device, flops, dict(p.read), int(psutil.virtual_memory().total))

    @property
    def channel_step(self) -> int:
        """32-bit lanes of a vector."""
        return self.peaks.vector_bytes // 4

    def fingerprint(self) -> dict[str, Any]:
        """The processor and a digest of its peaks."""
        return {"target": "roofline", "device": self.peaks.device, "peaks": digest(self.peaks.to_json())[:16]}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """fp32, and for layers those that are faster here."""
        if kind not in _LAYERS:
            return ("fp32",)
        faster = (p for p in ("bf16", "int8") if self.peaks.best(p) > self.peaks.best("fp32"))
        return ("fp32", *faster)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Least seconds of one inference, one row per operator.

        Args:
            workload_or_model: a traced workload, or a model with its example inputs.
            *example_inputs: what ``model`` is called with.
            policy: applied first. On a workload it may only quantize, because pruning changes shapes.

        Returns:
            A table whose ``breakdown`` has each time in the column of the resource that needs longest: ``compute``
            or a level of the memory. ``bytes`` is what comes from each level.

        Raises:
            ConfigError: the input cannot be costed.
            TargetUnavailable: there is no C compiler to measure the peaks with.
        """
        workload, asked = traced(workload_or_model, example_inputs, policy, "a roofline")
        if not len(workload):
            raise ConfigError("the network has no operators")
        widths = [asked.get(op.key, (_FULL, _FULL)) for op in workload]
        sizes = np.array([_bytes(op, *wide) for op, wide in zip(workload, widths, strict=True)]).T
        compute = np.array([self._compute_s(op, *wide) for op, wide in zip(workload, widths, strict=True)])
        moved = self._moved(*sizes)
        parts = {"compute": compute, **self._memory_s(*sizes, moved=moved)}
        stacked = np.stack(list(parts.values()))
        time = stacked.max(0)
        first = stacked.argmax(0)
        return CostTable(
            tuple(f"{name}#{call}" if call else name for name, call in (op.key for op in workload)),
            tuple(op.kind for op in workload),
            time,
            hi_s=stacked.sum(0),
            bytes={level: read + written for level, (read, written) in moved.items()},
            utilization=np.divide(compute, time, out=np.zeros_like(time), where=time > 0),
            breakdown={name: np.where(first == i, time, 0.0) for i, name in enumerate(parts)},
            source=f"lower bound: measured peaks of one core, {self.peaks.device}; real kernels are slower",
        )

    def _compute_s(self, op: Op, weight_bits: int, act_bits: int) -> float:
        """At the fastest unit that is wide enough; bit planes where their products take less time."""
        p = self.peaks
        if not op.macs:
            return 0.0 if not op.act_bytes else sum(t.numel for t in op.outputs) / p.best("fp32")
        wide = max(weight_bits, act_bits)
        own = "bf16" if {t.dtype for t in op.inputs} <= {"bfloat16"} else "fp32"
        precision = "int8" if wide <= 8 else "bf16" if wide <= 16 else own
        seconds = 2 * op.macs / p.best(precision)
        if wide <= 8 and "bits" in p.ops:
            seconds = min(seconds, 2 * op.macs * weight_bits * act_bits / p.best("bits"))
        return seconds

    def _moved(self, weights: FloatArray, read: FloatArray, written: FloatArray) -> dict[str, tuple[Any, Any]]:
        """Bytes that come from each level, and that go to it: what the cache before it cannot keep."""
        levels = list(self.peaks.read)
        whole = weights.sum() + (read + written).max()
        own = weights + read + written
        out: dict[str, tuple[Any, Any]] = {}
        for cache, behind in pairwise(levels):
            room = self.peaks.caches[cache]
            missed = np.maximum(0.0, 1 - room / np.maximum(own, 1.0))
            missed_weights = max(0.0, 1 - room / max(whole, 1.0))
            out[behind] = (weights * missed_weights + read * missed, written * missed)
        return out

    def _memory_s(
        self, weights: FloatArray, read: FloatArray, written: FloatArray, *, moved: Mapping[str, tuple[Any, Any]]
    ) -> dict[str, FloatArray]:
        """Seconds of each level; all operands pass through the first one."""
        p = self.peaks
        near = np.maximum((weights + read) / p.read["l1"], written / p.write["l1"])
        return {"l1": near} | {level: r / p.read[level] + w / p.write[level] for level, (r, w) in moved.items()}


def _bytes(op: Op, weight_bits: int, act_bits: int) -> tuple[float, float, float]:
    """Bytes of weights, of activations read and of activations written, at the precision that is asked for."""
    if not op.act_bytes:
        return 0.0, 0.0, 0.0  # a view
    weight = op.params.get("weight")
    low = 0.0 if weight is None or weight_bits == _FULL else weight.bytes - weight.numel * weight_bits / 8
    read, written = (sum(_stored(t, act_bits) for t in tensors) for tensors in (op.inputs, op.outputs))
    return op.weight_bytes - low, read, written


def _stored(t: TensorSpec, bits: int) -> float:
    return t.bytes if bits == _FULL else prod(t.shape) * bits / 8


def from_text(argument: str) -> Roofline:
    """Factory of ``"roofline"``.

    Raises:
        ConfigError: something follows the name.
    """
    if argument:
        raise ConfigError(f"target roofline is this machine and takes no argument, not {argument!r}")
    return Roofline()
