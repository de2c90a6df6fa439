"""Costs that are counted and not timed: the classic stand-ins for hardware, as targets like any other."""

from functools import partial
from typing import Any, ClassVar

import numpy as np

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantization, apply, plain
from netfit.workload import Workload, trace

from ._base import DeviceSpec, Target
from ._table import CostTable

UNIT_S = 1e-9  # one operation or byte a nanosecond: only ratios of such times mean anything
_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
_FULL_BITS = 32


class Counted(Target):
    """A machine of which only one thing is known: what it counts costs a nanosecond each.

    Args:
        metric: ``"macs"`` (multiply-accumulates, whatever their precision), ``"bops"`` (multiply-accumulates times
            the bits of weight and activation, over 32 x 32: the cost without hardware of "Towards Hardware-Specific
            Automatic Compression of Neural Networks", 2022), or ``"bytes"`` (weights at the precision they are
            stored in).

    >>> from torch import nn, ones
    >>> table = Counted("macs").cost(nn.Sequential(nn.Linear(32, 16)), ones(1, 32))
    >>> round(float(table.total().time_s) / UNIT_S)
    512
    """

    kind: ClassVar = "bounded"

    def __init__(self, metric: str) -> None:
        self.metric = metric

    @property
    def spec(self) -> DeviceSpec:
        """What is counted."""
        return DeviceSpec(self.metric)

    def fingerprint(self) -> dict[str, Any]:
        """What is counted."""
        return {"target": self.metric}

    def precisions(self, kind: str) -> tuple[str, ...]:
        """int8 where fewer bits count for less."""
        return ("fp32", "int8") if kind in _LAYERS and self.metric != "macs" else ("fp32",)

    def cost(self, workload_or_model: Any, *example_inputs: Any, policy: Policy | None = None) -> CostTable:
        """Counts of every operator, one nanosecond each.

        Raises:
            ConfigError: a policy for a workload, which has nothing that could be changed.
        """
        bits: dict[str, tuple[int, int]] = {}
        if isinstance(workload_or_model, Workload):
            if policy:
                raise ConfigError(f"target {self.metric} applies a policy to a model, not to a traced workload")
            workload = workload_or_model
        else:
            model = workload_or_model if policy is None else apply(workload_or_model, policy, *example_inputs)
            state = Quantization.of(model)
            if state is not None:
                bits = state.widths()
            workload = trace(plain(model), *example_inputs)
        counts = np.array(_stored(workload, bits) if self.metric == "bytes" else self._operations(workload, bits))
        names, kinds = tuple(op.name for op in workload), tuple(op.kind for op in workload)
        return CostTable(names, kinds, counts * UNIT_S, source=f"counted: {self.metric}, a nanosecond each")

    def _operations(self, workload: Workload, bits: dict[str, tuple[int, int]]) -> list[float]:
        shares = {n: w * a / _FULL_BITS**2 for n, (w, a) in bits.items()} if self.metric == "bops" else {}
        return [op.macs * shares.get(op.name, 1.0) for op in workload]


def _stored(workload: Workload, bits: dict[str, tuple[int, int]]) -> list[float]:
    """Bytes of each operator's parameters, at its first call; shared ones count once."""
    seen: set[str] = set()
    counts = []
    for op in workload:
        low = bits.get(op.name, (_FULL_BITS, 0))[0]
        new = {role: p for role, p in op.params.items() if p in op.trained and p.name not in seen}
        seen |= {p.name for p in new.values()}
        counts.append(float(sum(-(-p.numel * low // 8) if role == "weight" else p.bytes for role, p in new.items())))
    return counts


def _made(metric: str, argument: str) -> Counted:
    if argument:
        raise ConfigError(f"target {metric} takes no argument, not {argument!r}")
    return Counted(metric)


# Factories of the targets' names.
macs, bops, stored_bytes = (partial(_made, metric) for metric in ("macs", "bops", "bytes"))
