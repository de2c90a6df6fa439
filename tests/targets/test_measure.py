"""The measurement protocol against a simulated machine: no wall clock is read here."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from netfit.errors import ArtifactError, ConfigError, TargetError
from netfit.targets._measure import Measurement, SystemClock, measure


@dataclass
class Machine:
    """A core that is shared: calls cost CPU time, wall time stretches by ``load`` and is cut by the scheduler."""

    seed: int = 0
    load: float = 0.0  # other busy processes on this core
    jitter: float = 0.02  # share by which caches emptied by others slow a call down, at most
    cpu: float = 0.0
    wall: float = 0.0
    taken: int = 0
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def net(self, name: str, seconds: float):
        def call() -> None:
            self.calls.append(name)
            spent = seconds * (1 + self.jitter * self.rng.exponential(1 + self.load))
            self.cpu += spent
            self.wall += spent
            if self.load and self.rng.random() < 1 - math.exp(-spent / 2e-3):
                self.taken += 1
                self.wall += self.load * self.rng.uniform(4e-3, 12e-3)

        return call

    def cpu_ns(self) -> int:
        return round(self.cpu * 1e9)

    def wall_ns(self) -> int:
        return round(self.wall * 1e9)

    def switches(self) -> int:
        return self.taken


@pytest.mark.parametrize("load", [0.0, 4.0])
def test_ratio_is_right_idle_and_busy(load: float) -> None:
    pc = Machine(load=load)
    found = measure({"y": pc.net("y", 7e-3), "c": pc.net("c", 2.1e-3)}, yardstick="y", budget_s=60, clock=pc)
    c = found.timings["c"]
    assert c.ratio == pytest.approx(0.3, rel=0.02)
    assert c.lo <= c.ratio <= c.hi
    assert not found.noisy
    assert found.timings["y"].ratio == found.timings["y"].lo == found.timings["y"].hi == 1.0
    if load:  # what the wall clock would have said
        assert pc.wall > 3 * pc.cpu


def test_stops_early_when_sure_and_uses_the_budget_when_not() -> None:
    quiet, loud = Machine(jitter=1e-4), Machine(jitter=0.5)
    for pc in (quiet, loud):
        measure({"y": pc.net("y", 1e-3), "c": pc.net("c", 1e-3)}, yardstick="y", budget_s=3, rel=0.005, clock=pc)
    assert quiet.wall < 0.5  # eight rounds of two visits
    assert loud.wall > quiet.wall * 3
    assert loud.wall < 3.1


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(40):
        pc = Machine(seed=seed, jitter=0.2)
        nets = {"y": pc.net("y", 4e-3), "c": pc.net("c", 2e-3)}
        t = measure(nets, yardstick="y", budget_s=0.6, rel=1e-6, seed=seed, clock=pc).timings["c"]
        inside += t.lo <= 0.5 <= t.hi
    assert inside >= 34  # 95 % asked; 34 of 40 is 3 standard deviations below


def test_same_seed_same_result_and_random_order() -> None:
    results, orders = [], []
    for seed in (1, 1, 2):
        pc = Machine()
        nets = {n: pc.net(n, 1e-3) for n in "abc"}
        results.append(measure(nets, yardstick="a", budget_s=0.3, seed=seed, clock=pc))
        orders.append(pc.calls)
    assert results[0] == results[1]
    assert orders[0] == orders[1] != orders[2]


def test_one_yardstick_serves_many_candidates() -> None:
    pc = Machine()
    nets = {f"n{i}": pc.net(f"n{i}", i * 1e-3) for i in range(1, 6)}
    found = measure(nets, yardstick="n5", budget_s=5, clock=pc)
    for i in range(1, 6):
        assert found.timings[f"n{i}"].ratio == pytest.approx(i / 5, rel=0.03)


def test_a_slow_call_is_measured_once_and_flagged() -> None:
    pc = Machine()
    found = measure({"y": pc.net("y", 10.0)}, yardstick="y", budget_s=1, clock=pc)
    assert found.rounds == 1
    assert found.timings["y"].n == 1
    assert found.noisy
    assert len(pc.calls) == 3  # one to warm up, one discarded, one kept


def test_short_calls_are_timed_several_at_once() -> None:
    pc = Machine(jitter=0)
    found = measure({"y": pc.net("y", 1e-6)}, yardstick="y", budget_s=0.05, clock=pc)
    assert found.timings["y"].seconds == pytest.approx(1e-6, rel=1e-3)
    assert found.timings["y"].n < len(pc.calls) / 40


def test_several_threads_use_the_wall_clock_without_disturbed_calls() -> None:
    pc = Machine(load=4.0)
    nets = {"y": pc.net("y", 1e-3), "c": pc.net("c", 0.5e-3)}
    found = measure(nets, yardstick="y", budget_s=20, threads=2, clock=pc)
    assert found.timings["y"].seconds == pytest.approx(1e-3, rel=0.05)
    assert found.timings["c"].ratio == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("bad", ["backwards", "nan", "still"])
def test_bad_clock_readings_are_dropped_and_counted(bad: str) -> None:
    class Broken(Machine):
        reads = 0

        def cpu_ns(self):
            self.reads += 1
            if self.reads % 7 == 0:
                return {"backwards": -(10**12), "nan": math.nan, "still": self.last}[bad]
            self.last = super().cpu_ns()
            return self.last

    pc = Broken(jitter=0)
    found = measure({"y": pc.net("y", 1e-3), "c": pc.net("c", 2e-3)}, yardstick="y", budget_s=2, clock=pc)
    assert found.dropped > 0
    assert found.timings["c"].ratio == pytest.approx(2.0, rel=0.01)


def test_clock_that_never_moves_ends_with_an_error() -> None:
    class Dead(Machine):
        def cpu_ns(self) -> int:
            return 0

        wall_ns = cpu_ns

    pc = Dead()
    with pytest.raises(TargetError, match=r"'y'.*stood still"):
        measure({"y": pc.net("y", 1e-3)}, yardstick="y", budget_s=0.1, clock=pc)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no candidate 'bse'.*did you mean 'base'"):
        measure({"base": lambda: None}, yardstick="bse")
    with pytest.raises(ConfigError, match="budget_s=0"):
        measure({"base": lambda: None}, yardstick="base", budget_s=0)


def test_json_round_trip_and_damage() -> None:
    pc = Machine()
    found = measure({"y": pc.net("y", 1e-3), "c": pc.net("c", 2e-3)}, yardstick="y", budget_s=0.3, clock=pc)
    text = json.dumps(found.to_json())
    assert Measurement.from_json(json.loads(text)) == found
    for damage in (
        {},
        {"timings": 3},
        {**found.to_json(), "yardstick": "z"},
        {**found.to_json(), "extra": 1},
        json.loads(text.replace('"ratio": 1.0', '"ratio": NaN')),
    ):
        with pytest.raises(ArtifactError, match="not a measurement"):
            Measurement.from_json(damage)


def test_the_clocks_of_the_system_tick() -> None:
    clock = SystemClock()
    before = (clock.cpu_ns(), clock.wall_ns(), clock.switches())
    sum(range(100_000))
    after = (clock.cpu_ns(), clock.wall_ns(), clock.switches())
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert after[2] >= before[2]
