"""Formula, idealised table and simulation side by side: which schedule wins, and on which links that changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netfit.errors import ConfigError

from ._costs import StageCosts
from ._network import Network
from ._schedule import Schedule
from ._simulate import simulate

__all__ = ["Comparison", "compare"]

_FACTORS = tuple(4.0**k for k in range(-6, 6))  # of the given bandwidth
_BISECTIONS = 12
_SAME = 1e-9


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        rows: one plain row per network and schedule (``pandas.DataFrame(c.rows)`` makes a data frame): seconds by
            ``formula``, free ``table`` and ``simulated`` with the rank at each level, ``bubble``, mean ``exposed_s``,
            ``peak_bytes`` and ``activation_peak`` of the fullest device, and ``break_even``: the bandwidth in bytes/s
            from which the schedule is faster than the first one (0 when it always is, None when it never is).
        sweep: per network the ``bytes_per_s`` tried and the ``seconds`` of every schedule.
        flips: per network the bandwidths at which the fastest schedule changes, from slow to fast links.
    """

    rows: tuple[dict[str, Any], ...]
    sweep: Mapping[str, dict[str, Any]]
    flips: Mapping[str, tuple[dict[str, Any], ...]]

    def verdicts(self) -> list[str]:
        """One sentence per network: who wins at which bandwidth."""
        return [f"{name}: {_sentence(flips)}" for name, flips in self.flips.items()]


def compare(
    schedules: Sequence[Schedule],
    costs: StageCosts | Callable[[int], StageCosts],
    networks: Sequence[Network],
    *,
    steps: int = 1,
) -> Comparison:
    """Rank schedules at all three levels on every network.

    Args:
        schedules: on equally many devices with equally many microbatches; the first is what break-even refers to.
        costs: of the whole network, cut once per device, or a function from a number of stages to the costs of a cut
            into so many.
        networks: at least one.
        steps: more than one compares the time of a step among many.

    Raises:
        ConfigError: nothing to compare, or different sizes.
    """
    if not schedules or not networks:
        raise ConfigError("compare needs at least one schedule and one network")
    if len({(s.devices, s.microbatches) for s in schedules}) > 1:
        raise ConfigError("compare: all schedules must have the same devices and microbatches")
    if len({s.label for s in schedules}) < len(schedules):
        raise ConfigError("compare: two schedules have the same name")
    of = costs if callable(costs) else costs.for_stages
    cut = {s.label: of(s.stages) for s in schedules}
    field = _Field(schedules, cut, steps)
    free = field.seconds(None)
    rows, sweep, flips = [], {}, {}
    for network in networks:
        even: dict[str, float | None] = {}
        if network.name not in sweep and np.isfinite(bandwidth(network)):
            sweep[network.name] = field.sweep(network)
            flips[network.name] = field.flips(network, sweep[network.name])
            even = field.break_even(network, sweep[network.name])
        rows += _rows(field, network, free, even)
    return Comparison(tuple(rows), sweep, flips)


def bandwidth(network: Network) -> float:
    """Bytes per second of the slowest link between two devices."""
    apart = ~np.eye(network.devices, dtype=bool)
    return float(network.bytes_per_s[apart].min(initial=math.inf))


@dataclass(frozen=True)
class _Field:
    """The schedules that compete, with their costs."""

    schedules: Sequence[Schedule]
    costs: Mapping[str, StageCosts]
    steps: int

    def one(self, schedule: Schedule, network: Network | None) -> float:
        return simulate(schedule, self.costs[schedule.label], network, self.steps).step_s

    def seconds(self, network: Network | None) -> dict[str, float]:
        return {s.label: self.one(s, network) for s in self.schedules}

    def sweep(self, network: Network) -> dict[str, Any]:
        found = [self.seconds(network.scaled(f)) for f in _FACTORS]
        return {
            "bytes_per_s": [bandwidth(network) * f for f in _FACTORS],
            "seconds": {s.label: [at[s.label] for at in found] for s in self.schedules},
        }

    def break_even(self, network: Network, sweep: dict[str, Any]) -> dict[str, float | None]:
        """Bandwidth from which every schedule stays ahead of the first one."""
        base = self.schedules[0]
        found: dict[str, float | None] = {}
        for schedule in self.schedules[1:]:
            pairs = zip(sweep["seconds"][schedule.label], sweep["seconds"][base.label], strict=True)
            ahead = [a < b * (1 - _SAME) for a, b in pairs]
            if not ahead[-1]:
                found[schedule.label] = None
            elif all(ahead):
                found[schedule.label] = 0.0
            else:
                last = max(i for i, yes in enumerate(ahead) if not yes)
                found[schedule.label] = self._crossing(network, schedule, base, last)
        return found

    def flips(self, network: Network, sweep: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Winners from slow to fast links; a flip between two of the tried bandwidths is found by bisection."""
        by_label = {s.label: s for s in self.schedules}
        winners = [_winner({k: v[i] for k, v in sweep["seconds"].items()}) for i in range(len(_FACTORS))]
        found: list[dict[str, Any]] = [{"from_bytes_per_s": 0.0, "schedule": winners[0]}]
        for i, (slow, fast) in enumerate(itertools.pairwise(winners)):
            if slow != fast:
                at = self._crossing(network, by_label[fast], by_label[slow], i)
                found.append({"from_bytes_per_s": at, "schedule": fast})
        return tuple(found)

    def _crossing(self, network: Network, rises: Schedule, falls: Schedule, i: int) -> float:
        low, high = math.log(_FACTORS[i]), math.log(_FACTORS[i + 1])
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            there = network.scaled(math.exp(middle))
            if self.one(rises, there) < self.one(falls, there) * (1 - _SAME):
                high = middle
            else:
                low = middle
        return bandwidth(network) * math.exp(high)


def _winner(seconds: Mapping[str, float]) -> str:
    """The fastest; of equals the one named first."""
    best = min(seconds.values())
    return next(label for label, s in seconds.items() if s <= best * (1 + _SAME))


def _rows(
    field: _Field, network: Network, free: Mapping[str, float], even: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for schedule in field.schedules:
        costs = field.costs[schedule.label]
        run = simulate(schedule, costs, network, field.steps)
        closed = schedule.formula(costs)
        row: dict[str, Any] = {
            "network": network.name, "schedule": schedule.label, "devices": schedule.devices,
            "microbatches": schedule.microbatches, "stages": schedule.stages,
            "formula": None if closed is None else closed.seconds, "table": free[schedule.label],
            "simulated": run.step_s, "device_span": run.device_span, "bubble": run.bubble,
            "formula_bubble": None if closed is None else closed.bubble,
            "exposed_s": float(run.exposed_s.mean()), "activation_peak": float(run.activation_peak.max()),
            "peak_bytes": float(run.peak_bytes.max()), "break_even": even.get(schedule.label),
        }  # fmt: skip
        rows.append(row)
    for level in ("formula", "table", "simulated"):
        values = [row[level] for row in rows]
        for row in rows:
            row[f"rank_{level}"] = _rank(row[level], values)
    return rows


def _rank(value: float | None, values: Sequence[float | None]) -> int | None:
    """1 for the fastest; equals share a rank."""
    if value is None:
        return None
    return 1 + sum(other < value * (1 - _SAME) for other in values if other is not None)


def _sentence(flips: Sequence[dict[str, Any]]) -> str:
    if len(flips) == 1:
        return f"{flips[0]['schedule']} wins at every bandwidth tried"
    said = [f"{flips[0]['schedule']} wins below {rate(flips[1]['from_bytes_per_s'])}"]
    said += [f"{flip['schedule']} above {rate(flip['from_bytes_per_s'])}" for flip in flips[1:]]
    return ", ".join(said)


def rate(value: float) -> str:
    """Bytes per second for people.

    >>> rate(3.8e10), rate(3.3)
    ('38 GB/s', '3.3 B/s')
    """
    for scale, unit in ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} B/s"
