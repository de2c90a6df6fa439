"""Optimal schedules under a memory limit, by constraint programming (CP-SAT of OR-tools)."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from netfit.errors import ConfigError, JobError, require

from ._costs import FloatArray, StageCosts
from ._make import make
from ._network import Network
from ._plain import zero_bubble_row
from ._schedule import Op, Proof, Schedule
from ._simulate import simulate
from ._vshape import v_placement

__all__ = ["optimize"]

_FINEST = 1_000_000  # integer time units of the longest operation; finer ones are rounded
_SEEDS = ("zb-h1", "1f1b", "zb-h2", "gpipe", "zb-v", "v-half", "v-min")


def optimize(
    devices: int,
    microbatches: int,
    costs: StageCosts,
    network: Network | None = None,
    activation_limit: float | None = None,
    time_limit_s: float = 30.0,
    *,
    seed: int = 0,
) -> Schedule:
    """The fastest schedule whose activations fit, with a proof or a bound on what is possible.

    Every backward may be split into B and W. Messages take latency plus bytes / bandwidth and never queue, so the bound
    holds for the simulated network too, where queueing can only add to it.

    Args:
        devices: pipeline devices.
        microbatches: per step, all alike, so they pass every stage in order.
        costs: one stage per device, or two, placed as a V.
        network: links; None for a free network.
        activation_limit: per device, in the unit of ``costs.activation_bytes``; None for no limit.
        time_limit_s: seconds of search. The best published schedule that fits starts it and is kept when nothing
            better is found.
        seed: of the solver.

    Returns:
        A schedule with ``proof``: its status is ``optimal`` or ``bound``.

    Raises:
        ConfigError: sizes do not match, or no schedule can fit the limit.
        MissingExtraError: ortools is not installed.
    """
    cp_model = require("ortools.sat.python.cp_model", "pipeline")
    home = _home(devices, costs)
    _check(devices, microbatches, network, activation_limit, time_limit_s)
    known = _best_known(devices, microbatches, costs, network, activation_limit)
    floor = _floor(home, microbatches, costs, network)
    if known is not None and known[1] <= floor * (1 + 1e-12):
        return replace(known[0], proof=Proof("optimal", floor, known[1]))
    model = _Model(cp_model, home, microbatches, costs, network, activation_limit, known)
    return _solved(cp_model, model, known, activation_limit, floor, time_limit_s, seed)


def _solved(
    cp: Any,
    model: _Model,
    known: tuple[Schedule, float] | None,
    limit: float | None,
    floor: float,
    time_limit_s: float,
    seed: int,
) -> Schedule:
    solver = cp.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.num_workers = min(os.cpu_count() or 1, 8)
    solver.parameters.random_seed = seed
    # Its own handler would leave SIGINT at the system's default, and Ctrl-C would kill the caller without clean-up.
    solver.parameters.catch_sigint_signal = False
    status = solver.solve(model.model)
    if status == cp.INFEASIBLE:
        raise ConfigError(
            f"activation limit {limit:g} is too small: one microbatch keeps {_least(model.home, model.costs):g} "
            "on the fullest device"
        )
    # Times that had to be rounded may each be half a unit off, along the whole chain of operations.
    slack = 0.0 if model.exact else 0.5 * len(model.start)
    bound = max((solver.best_objective_bound - slack) * model.unit, floor)
    if status not in (cp.OPTIMAL, cp.FEASIBLE):
        if known is None:
            raise JobError(f"no schedule found within {time_limit_s:g} s; the bound is {bound:g} s, give it more time")
        return replace(known[0], proof=Proof("bound", bound, known[1]))
    found = model.schedule(solver)
    seconds = solver.objective_value * model.unit
    proven = status == cp.OPTIMAL and model.exact
    return replace(found, proof=Proof("optimal" if proven else "bound", min(bound, seconds), seconds))


class _Model:
    """Start times of all operations as integer variables."""

    def __init__(
        self, cp: Any, home: tuple[int, ...], m: int, costs: StageCosts, network: Network | None,
        limit: float | None, known: tuple[Schedule, float] | None,
    ) -> None:  # fmt: skip
        self.home, self.m, self.costs = home, m, costs
        self.model = cp.CpModel()
        delay = _delays(home, costs, network)
        times, self.unit, self.exact = _integers(np.concatenate([costs.t_f, costs.t_b, costs.t_w, delay]))
        n = len(home)
        self._length = {"F": times[:n], "B": times[n : 2 * n], "W": times[2 * n : 3 * n]}
        self._delay = times[3 * n :]
        work = sum(m * int(self._length[k][s]) for k in "FBW" for s in range(n))
        horizon = work + 2 * m * int(self._delay.sum())
        if known is not None:
            horizon = min(horizon, math.ceil(known[1] / self.unit + 1e-6) + 3 * n * m * (not self.exact))
        self.start = {
            (k, s, j): self.model.new_int_var(0, horizon, f"{k}{j}@{s}")
            for k in "FBW" for s in range(n) for j in range(m)
        }  # fmt: skip
        self._dependencies()
        self._devices(limit, costs)
        end = self.model.new_int_var(0, horizon, "end")
        self.model.add(
            end >= math.floor(_floor(home, m, costs, network) / self.unit * (1 - 1e-12)) - (not self.exact) * n * m
        )
        for s in range(n):
            self.model.add(end >= self._end("W", s, m - 1))
        self.model.minimize(end)
        if known is not None:
            self._hint(known[0], costs, network)

    def _end(self, k: str, s: int, j: int) -> Any:
        return self.start[k, s, j] + int(self._length[k][s])

    def _dependencies(self) -> None:
        n = len(self.home)
        for s in range(n):
            for j in range(self.m):
                if s:
                    self.model.add(self.start["F", s, j] >= self._end("F", s - 1, j) + int(self._delay[s - 1]))
                    self.model.add(self.start["B", s - 1, j] >= self._end("B", s, j) + int(self._delay[s - 1]))
                self.model.add(self.start["B", s, j] >= self._end("F", s, j))
                self.model.add(self.start["W", s, j] >= self._end("B", s, j))
                for k in "FBW" if j else "":
                    # Microbatches are alike, so passing in order loses nothing.
                    self.model.add(self.start[k, s, j] >= self._end(k, s, j - 1))

    def _devices(self, limit: float | None, costs: StageCosts) -> None:
        """One operation at a time; activations as a reservoir that forwards fill and backwards drain."""
        acts, _, _ = _integers(costs.activation_bytes)
        scale = acts.max() / costs.activation_bytes.max() if costs.activation_bytes.max() else 1.0
        early = [round(a * costs.free_at_b) for a in acts]
        for d in sorted(set(self.home)):
            mine = [s for s in range(len(self.home)) if self.home[s] == d]
            keys = [(k, s, j) for k in "FBW" for s in mine for j in range(self.m)]
            self.model.add_no_overlap(
                [
                    self.model.new_fixed_size_interval_var(self.start[k, s, j], int(self._length[k][s]), "")
                    for k, s, j in keys
                ]
            )
            if limit is None:
                continue
            if len(mine) == 1 and costs.free_at_b == 0 and acts[mine[0]]:
                # Microbatches pass in order, so the limit is a distance between forwards and weight gradients.
                apart = math.floor(limit / costs.activation_bytes[mine[0]] + 1e-9)
                for j in range(self.m - apart if apart else 1):
                    self.model.add(self.start["F", mine[0], j + apart] >= self._end("W", mine[0], j))
                continue
            amount = {"F": acts, "B": [-e for e in early], "W": [e - a for e, a in zip(early, acts, strict=True)]}
            level = [
                (self.start[key] if key[0] == "F" else self._end(*key), int(amount[key[0]][key[1]])) for key in keys
            ]
            self.model.add_reservoir_constraint(
                [when for when, _ in level], [by for _, by in level], 0, math.floor(limit * scale + 1e-9)
            )

    def _hint(self, known: Schedule, costs: StageCosts, network: Network | None) -> None:
        """Start from the best published table; a whole backward is a B and a W right behind each other."""
        for event in simulate(known, costs, network).events():
            s, j, at = event["stage"], event["microbatch"], round(event["start"] / self.unit)
            if event["kind"] == "X":
                self.model.add_hint(self.start["B", s, j], at)
                self.model.add_hint(self.start["W", s, j], at + int(self._length["B"][s]))
            else:
                self.model.add_hint(self.start[event["kind"], s, j], at)

    def schedule(self, solver: Any) -> Schedule:
        rows: list[list[tuple[int, int, Op]]] = [[] for _ in range(max(self.home) + 1)]
        for (k, s, j), variable in self.start.items():
            at = solver.value(variable)
            # Operations of no length share a start: forwards before backwards before weights.
            rows[self.home[s]].append((at, at + int(self._length[k][s]), Op(k, s, j)))
        order = [
            tuple(op for _, _, op in sorted(row, key=lambda r: (r[0], r[1], "FBW".index(r[2].kind)))) for row in rows
        ]
        return Schedule("optimal", tuple(order), (self.home,), self.m).validate()


def _home(devices: int, costs: StageCosts) -> tuple[int, ...]:
    if len(costs) == devices:
        return tuple(range(devices))
    if len(costs) == 2 * devices:
        return v_placement(devices)[0]
    raise ConfigError(f"optimize: {len(costs)} stages on {devices} devices; give one or two stages per device")


def _check(p: int, m: int, network: Network | None, limit: float | None, time_limit_s: float) -> None:
    if p < 1 or m < 1:
        raise ConfigError(f"optimize: {p} devices and {m} microbatches, both must be at least 1")
    if network is not None and network.devices != p:
        raise ConfigError(f"the network joins {network.devices} devices, not {p}")
    if limit is not None and not limit > 0:
        raise ConfigError(f"activation_limit is {limit}, it must be positive")
    if not 0 < time_limit_s < math.inf:
        raise ConfigError(f"time_limit_s is {time_limit_s}, it must be positive")


def _floor(home: tuple[int, ...], m: int, costs: StageCosts, network: Network | None) -> float:
    """No device is done before the first microbatch has reached it and all its work is done."""
    delay = _delays(home, costs, network)
    arrival = np.concatenate([[0.0], np.cumsum(costs.t_f + delay)[:-1]])
    work = m * np.bincount(np.array(home), costs.t_f + costs.t_x)
    return max(float(arrival[home.index(d)] + work[d]) for d in set(home))


def _least(home: tuple[int, ...], costs: StageCosts) -> float:
    return float(np.bincount(np.array(home), costs.activation_bytes).max())


def _best_known(
    p: int, m: int, costs: StageCosts, network: Network | None, limit: float | None
) -> tuple[Schedule, float] | None:
    """The fastest published table of this placement that fits the limit, and its seconds without queueing."""
    best: tuple[Schedule, float] | None = None
    tables = [make(name, p, m) for name in _SEEDS]
    if (
        limit is not None
        and len(costs) == p
        and (most := int(limit / costs.activation_bytes.max(initial=1e-300) + 1e-9))
    ):
        tables.append(_throttled(p, m, most))
    for table in tables:
        if table.stages != len(costs):
            continue
        run = simulate(table, costs, network)
        if limit is not None and run.activation_peak.max() > limit * (1 + 1e-9):
            continue
        if best is None or run.makespan < best[1]:
            best = table, run.makespan
    return best


def _throttled(p: int, m: int, most: int) -> Schedule:
    """ZB-H1 with fewer microbatches in flight than devices."""
    ahead = [min(p - 1 - d, most - 1) for d in range(p)]
    rows = [zero_bubble_row(d, m, ahead[d], min(d, most - 1 - ahead[d])) for d in range(p)]
    return Schedule("custom", tuple(map(tuple, rows)), (tuple(range(p)),), m)


def _delays(home: tuple[int, ...], costs: StageCosts, network: Network | None) -> FloatArray:
    """Seconds from a stage to the next, the slower direction; one entry per stage, the last one 0."""
    delay = np.zeros(len(home))
    for s, (a, b) in enumerate(itertools.pairwise(home)):
        if network is not None and a != b:
            each = [
                network.latency_s[x, y] + costs.boundary_bytes[s] / network.bytes_per_s[x, y]
                for x, y in ((a, b), (b, a))
            ]
            delay[s] = min(each)  # a bound must not exceed what a faster direction allows
    return delay


def _integers(values: FloatArray) -> tuple[Any, float, bool]:
    """Values as multiples of one unit; exact when they have a common measure that is not too fine."""
    parts = [Fraction(float(v)).limit_denominator(10_000) for v in values]
    exact = all(abs(float(part) - v) <= 1e-12 * abs(v) for part, v in zip(parts, values, strict=True))
    common = math.lcm(*(part.denominator for part in parts))
    largest = float(values.max())
    if exact and largest * common <= _FINEST:
        return np.array([int(part * common) for part in parts], dtype=np.int64), 1.0 / common, True
    if largest == 0.0:
        return np.zeros(len(values), dtype=np.int64), 1.0, True
    unit = largest / 10_000
    return np.round(values / unit).astype(np.int64), unit, False
