"""From a network's operators to the costs of its stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from netfit.errors import ConfigError
from netfit.targets import CostTable
from netfit.workload import Op, TensorSpec, Workload

from ._costs import FloatArray, StageCosts

__all__ = ["from_table", "split"]

_MATRIX = ("matmul", "attention", "einsum")  # two operands that both need a gradient: the backward is two forwards
# Adam keeps two float32 moments of every weight; below float32 also a float32 copy of the weight.
_MOMENTS, _MASTER = 8, 4


def from_table(
    workload: Workload, table: CostTable, cuts: Sequence[int] | Literal["auto"], stages: int | None, keep: float
) -> StageCosts:
    """Stage costs of a cut network.

    Raises:
        ConfigError: the cuts do not fit the network.
    """
    if len(workload) == 0:
        raise ConfigError("the workload has no operator to place on a stage")
    if not 0 <= keep <= 1:
        raise ConfigError(f"kept share of activations is {keep}, allowed 0 to 1")
    forward = _seconds(workload, table)
    weighted = np.array([bool(op.params) for op in workload])
    twice = np.array([op.kind in _MATRIX and not op.params for op in workload])
    input_grad, weight_grad = np.where(twice, 2 * forward, forward), np.where(weighted, forward, 0.0)
    crossing, tensors = _crossing(workload)
    if isinstance(cuts, str):
        where = split(forward + input_grad + weight_grad, tensors, stages)
    else:
        where = [0, *_checked(cuts, stages, len(workload)), len(workload)]
    parts = list(itertools.pairwise(where))
    total = lambda values: np.array([values[a:b].sum() for a, b in parts])  # noqa: E731
    weights, state = zip(*(_weights(workload[a:b]) for a, b in parts), strict=True)
    return StageCosts(
        total(forward), total(input_grad), total(weight_grad),
        activation_bytes=[keep * _kept(workload[a:b]) for a, b in parts],
        weight_bytes=weights, grad_bytes=weights, optimizer_bytes=state,
        boundary_bytes=[*(float(crossing[b]) for _, b in parts[:-1]), 0.0],
        note=f"{table.source}; backward by the 1:2 rule; Adam",
    )  # fmt: skip


def split(seconds: FloatArray, crossing_tensors: Sequence[int], stages: int | None) -> list[int]:
    """First operators of the stages, and the end: the cut whose slowest stage is fastest.

    Cuts where a single tensor crosses are preferred: inside a residual block two or more would have to travel.

    Args:
        seconds: per operator.
        crossing_tensors: tensors that cross in front of every operator.
        stages: how many.

    Raises:
        ConfigError: more stages than operators that take time.
    """
    n = len(seconds)
    most = int((seconds > 0).sum())
    if stages is None or not 1 <= stages <= most:
        raise ConfigError(f"stages is {stages}, allowed 1 to the {most} operators of the network that take time")
    until = np.concatenate([[0.0], np.cumsum(seconds)])
    single = _timed([i for i in range(1, n) if crossing_tensors[i] == 1], until)
    places = np.array([0, *(single if len(single) >= stages - 1 else _timed(range(1, n), until)), n])
    before = until[places]
    best = before.copy()  # slowest stage when the first k stages end at each place
    last: list[list[int]] = []
    for k in range(1, stages):
        step, choice = np.full(len(places), np.inf), np.zeros(len(places), dtype=int)
        for end in range(k + 1, len(places)):
            slowest = np.maximum(best[k:end], before[end] - before[k:end])
            at = int(slowest.argmin())
            step[end], choice[end] = slowest[at], k + at
        best = step
        last.append(choice.tolist())
    where = [len(places) - 1]
    for choice_of in reversed(last):
        where.append(choice_of[where[-1]])
    return [0, *(int(places[i]) for i in where[::-1])]


def _timed(places: Sequence[int], until: FloatArray) -> list[int]:
    """The places with something to compute between them: a stage of views alone would be none."""
    kept: list[int] = []
    for i in places:
        if until[kept[-1] if kept else 0] < until[i] < until[-1]:
            kept.append(i)
    return kept


def _seconds(workload: Workload, table: CostTable) -> FloatArray:
    """Time of every operator; a measured table has the rows of the runtime, found again by name."""
    if table.time_s.ndim != 1:
        raise ConfigError(f"the cost table holds {len(table.time_s)} configurations; give the table of one")
    if table.names == tuple(op.name for op in workload):
        return table.time_s.copy()
    per_name: dict[str, float] = {}
    for name, seconds in zip(table.names, table.time_s.tolist(), strict=True):
        per_name[name] = per_name.get(name, 0.0) + seconds
    calls: dict[str, int] = {}
    for op in workload:
        calls[op.name] = calls.get(op.name, 0) + 1
    if not set(per_name) & set(calls):
        raise ConfigError(
            f"no row of the cost table names an operator of the network; its first row is {table.names[0]!r}"
        )
    return np.array([per_name.get(op.name, 0.0) / calls[op.name] for op in workload])


def _crossing(workload: Workload) -> tuple[list[int], list[int]]:
    """Bytes and number of tensors that are made before every operator and still read by it or later ones."""
    made = {t.name: i for i, op in enumerate(workload, 1) for t in op.outputs}
    read: dict[str, tuple[int, TensorSpec]] = {}
    for i, op in enumerate(workload):
        for tensor in op.inputs:
            read[tensor.name] = (i, tensor)
    total, number = [0] * (len(workload) + 1), [0] * (len(workload) + 1)
    for name, (end, tensor) in read.items():
        for i in range(made.get(name, 0), end + 1):
            total[i] += tensor.bytes
            number[i] += 1
    return total, number


def _kept(ops: Sequence[Op]) -> float:
    """Activations that the backward needs again: what the operators read, each tensor once."""
    kept = {t.name: t.bytes for op in ops if op.act_bytes for t in op.inputs}
    return float(sum(kept.values()))


def _weights(ops: Sequence[Op]) -> tuple[float, float]:
    """Bytes of weights and of Adam's state; tied weights count once per stage."""
    weights = {p.name: p for op in ops for p in op.trained}
    state = sum(p.numel * (_MOMENTS + (_MASTER if p.bytes < 4 * p.numel else 0)) for p in weights.values())
    return float(sum(p.bytes for p in weights.values())), float(state)


def _checked(cuts: Sequence[int], stages: int | None, n: int) -> list[int]:
    where = [int(c) for c in cuts]
    if any(b <= a for a, b in zip([0, *where], [*where, n], strict=True)):
        raise ConfigError(f"cuts {where} must grow and lie between 1 and {n - 1}")
    if stages not in (None, len(where) + 1):
        raise ConfigError(f"{len(where)} cuts make {len(where) + 1} stages, not {stages}")
    return where
