"""The steps of cluster.c and peers.c in plain Python: the reference that the native code is compared with."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from netfit.kernels.peers import PeerRows, PeerSettings, PeerState

Key = tuple[float, int]
TINY = 1e-12  # the unit of a group of zeros
ABOVE_1 = 1.000001  # also in single precision
LANES = 8  # sums side by side
LONGEST = 64  # rows that are counted of a shift


def labels_reference(x: list[float], eps: float, min_samples: int) -> list[int]:
    """DBSCAN labels of one row, clusters numbered by value; -1 is noise."""
    keys = sorted((v, i) for i, v in enumerate(x) if math.isfinite(v))
    out = [-1] * len(x)
    for (_, i), label in zip(keys, _cluster(keys, eps, min_samples)[0], strict=True):
        out[i] = label
    return out


def _cluster(keys: list[Key], eps: float, min_samples: int) -> tuple[list[int], list[bool], list[int]]:
    """Labels in sorted order, which points are cores, and the lowest index of a core of each cluster."""
    n = len(keys)
    label, core, first = [-1] * n, [False] * n, []
    left = right = 0
    last: float | None = None
    for i, (v, index) in enumerate(keys):
        while v - keys[left][0] > eps:
            left += 1
        while right + 1 < n and keys[right + 1][0] - v <= eps:
            right += 1
        core[i] = right - left + 1 >= min_samples
        if not core[i]:
            continue
        if last is None or v - last > eps:
            first.append(index)
        else:
            first[-1] = min(first[-1], index)
        label[i], last = len(first) - 1, v
    for order in (range(n), range(n - 1, -1, -1)):  # a border point looks left, then right
        at = -1
        for i in order:
            if core[i]:
                at = i
            elif at >= 0 and abs(keys[i][0] - keys[at][0]) <= eps:
                other = label[at]
                label[i] = other if label[i] < 0 or first[other] < first[label[i]] else label[i]
    return label, core, first


def _normal(label: list[int], first: list[int]) -> int:
    counts = [label.count(k) for k in range(len(first))]
    best = max(range(len(first)), key=lambda k: (counts[k], -first[k]), default=-1)
    return best if best >= 0 and 2 * counts[best] >= len(label) else -1


def rows_reference(
    x: NDArray[np.float64], source: NDArray[np.int64], eps: NDArray[np.float64], settings: "PeerSettings",
    state: "PeerState", out: "PeerRows",
) -> list[Any]:  # fmt: skip
    """Fill `out` and return its events."""
    events: list[Any] = []
    for dense in (out.score, out.z):
        if dense is not None:
            dense[:] = np.nan
    for row in range(len(x)):
        values = np.append(x[row], np.nan)[source].tolist()
        for g in range(len(state.offset) - 1):
            _group_row(row, g, values, float(eps[g]), settings, state, out, events)
    return events


def _group_row(
    row: int, g: int, values: list[float], eps: float, settings: "PeerSettings", state: "PeerState", out: "PeerRows",
    events: list[Any],
) -> None:  # fmt: skip
    c, slots = state.channel, range(int(state.offset[g]), int(state.offset[g + 1]))
    there = [slot for slot in slots if math.isfinite(values[slot])]
    _absences(row, slots, there, settings, state, events)
    out.count[row, g], out.group_score[row, g] = len(there), 0.0
    out.median[row, g] = out.std[row, g] = math.nan
    if not there:
        return
    ordered = sorted(values[slot] for slot in there)
    m = len(ordered)
    median = ordered[m // 2] if m % 2 else 0.5 * (ordered[m // 2 - 1] + ordered[m // 2])
    mean = _sum(ordered) / m
    out.median[row, g], out.std[row, g] = median, math.sqrt(_sum([(v - mean) * (v - mean) for v in ordered]) / m)
    unit = 0.0
    keys = [(values[slot], slot - slots.start) for slot in there]
    automatic = eps <= 0
    if automatic:
        warm = min(int(state.warm[g]), settings.memory)
        state.scale[g] += (_quartile_distance(ordered, median) - state.scale[g]) / (warm + 1)
        unit, eps = max(float(state.scale[g]), settings.resolution, TINY, 0.01 * abs(median)), settings.auto_eps
        floor = [max(unit, c["spread"][slot]) for slot in there]
        keys = [((values[s] - median - c["bias"][s]) / f, s - slots.start) for s, f in zip(there, floor, strict=True)]
    state.warm[g] += 1
    keys.sort()
    label, core, first = _cluster(keys, eps, settings.min_samples)
    normal = _normal(label, first)
    cores = [v for (v, _), k, is_core in zip(keys, label, core, strict=True) if is_core and k == normal]
    low, high = min(cores, default=math.inf), max(cores, default=-math.inf)
    centre, reach = 0.5 * (low + high), 0.5 * (high - low) + eps
    worst = 0.0
    for (v, local), k in zip(keys, label, strict=True):
        outlying = normal >= 0 and k != normal
        score = 0.0 if normal < 0 else abs(v - centre) / reach
        slot, z = slots.start + local, v if automatic else (v - median) / eps
        shift = _shift(slot, z if normal >= 0 else 0.0, settings, state) if automatic else 0.0
        score = _channel(row, g, slot, values[slot], z, score, outlying, shift, median, unit, settings, state, events)
        if out.score is not None and out.z is not None:
            out.score[row, slot], out.z[row, slot] = score, z
        worst = max(worst, score)
    out.group_score[row, g] = worst


def _channel(
    row: int, g: int, slot: int, value: float, z: float, score: float, outlying: bool, shift: float, median: float,
    unit: float, settings: "PeerSettings", state: "PeerState", events: list[Any],
) -> float:  # fmt: skip
    c = state.channel
    expected = median + float(c["bias"][slot]) if unit > 0 else median
    kind = int(abs(value) <= 1e-8 < abs(expected))
    c["seen"][slot] += 1
    c["gap"][slot] = 0
    c["run"][slot] = (int(c["run"][slot]) + 1 if c["run"][slot] and c["kind"][slot] == kind else 1) if outlying else 0
    c["kind"][slot] = kind if outlying else c["kind"][slot]
    seen, run = int(c["seen"][slot]), int(c["run"][slot])
    known = seen >= settings.min_presence
    alarm = known and outlying and run >= settings.min_duration
    score = max(score, ABOVE_1) if alarm else 1.0 if outlying else min(score, 1.0)
    if alarm:
        events.append((row, slot, run, kind, value, expected, z, score))
    elif known and shift > 1:
        events.append((row, slot, int(c["rise"][slot]), 4, value, expected, z, shift))
    elif settings.watch_absence and seen == settings.min_presence and state.warm[g] > settings.min_presence:
        events.append((row, slot, seen, 3, value, expected, z, 1.0))
    if unit > 0:
        _learn(slot, value - median, unit, outlying, settings, state)
    return score


def _shift(slot: int, z: float, settings: "PeerSettings", state: "PeerState") -> float:
    """Page's sum of what is beyond the shift; in units of its limit, 0 where the shift does not last in this row."""
    c, limit = state.channel, 5 * settings.shift
    cap, old = limit / 3, float(c["drift"][slot])
    inside = max(-cap, min(cap, z))
    up, down = max(old, 0.0) + inside - settings.shift, max(-old, 0.0) - inside - settings.shift
    total = min(up, 1.5 * limit) if up > 0 else -min(down, 1.5 * limit) if down > 0 else 0.0
    rise = int(c["rise"][slot])
    c["rise"][slot] = 0 if total == 0 else min(rise + 1, LONGEST) if total * old > 0 else 1
    c["drift"][slot] = total
    return abs(total) / limit if (z if total > 0 else -z) > settings.shift else 0.0


def _learn(
    slot: int, distance: float, unit: float, outlying: bool, settings: "PeerSettings", state: "PeerState"
) -> None:
    c = state.channel
    seen = float(min(int(c["seen"][slot]), settings.memory))
    limit, slow = settings.auto_eps * unit, 0.125 if outlying else 1.0
    d = max(-limit, min(limit, distance - float(c["bias"][slot])))
    c["bias"][slot] += slow * d / (seen + 30.0)
    c["spread"][slot] += slow * (abs(d) - float(c["spread"][slot])) / (seen + 30.0)


def _absences(
    row: int, slots: range, there: list[int], settings: "PeerSettings", state: "PeerState", events: list[Any]
) -> None:
    c, known = state.channel, int((state.channel["seen"][slots.start : slots.stop] > 0).sum())
    for slot in sorted(set(slots) - set(there)):
        if not c["seen"][slot]:
            continue
        c["gap"][slot] += 1
        gap, met = int(c["gap"][slot]), c["seen"][slot] >= settings.min_presence
        if settings.watch_absence and gap == settings.min_duration and met and 2 * len(there) >= known:
            events.append((row, slot, gap, 2, math.nan, math.nan, math.nan, 1.0))
        if gap > settings.lifetime:
            for name in ("seen", "gap", "run", "rise", "bias", "spread", "drift"):
                c[name][slot] = 0


def _quartile_distance(ordered: list[float], median: float) -> float:
    low, high = 0, len(ordered) - 1
    for _ in range(high - 3 * high // 4):
        if median - ordered[low] >= ordered[high] - median:
            low += 1
        else:
            high -= 1
    return max(median - ordered[low], ordered[high] - median)


def _sum(values: list[float]) -> float:
    sums = [0.0] * LANES
    for i, v in enumerate(values):  # one after another, as the native code does
        sums[i % LANES] += v
    total = sums[0]
    for part in sums[1:]:
        total += part
    return total
