"""Latency that stays true on a busy machine.

Other processes stretch the wall clock by the share of the core they take, and no average repairs that. Three
things do: the CPU time of this process does not run while somebody else has the core; a low percentile ignores
the runs whose caches were emptied by them; and what is left (clock frequency, a neighbour on the memory bus)
strikes the candidate and a yardstick alike when the two are measured in turns, so their ratio keeps still.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, ConfigError, TargetError, did_you_mean

from ._lock import alone

PROTOCOL = 1  # raise it when the numbers change their meaning: kept measurements of older protocols are not read
PERCENTILE = 15.0
NOISY = 0.03  # half-width of the interval of the ratio above which a number is flagged
# One visit to a candidate: long enough to fill the caches anew, short enough to alternate often. Visits of 8 ms
# overrated an 11 MB network by 20 %, because half of their calls still met another network's caches.
_VISIT_S = 24e-3
_SAMPLE_S = 5e-5  # shorter calls are timed several at once, so that reading the clock costs less than 1 %
_WARM_UP = 3
_MIN_ROUNDS = 8
_BOOTSTRAP = 200


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def cpu_ns(self) -> int:
        """CPU time of the whole process, in nanoseconds."""

    def wall_ns(self) -> int:
        """Monotonic wall time, in nanoseconds."""

    def switches(self) -> int:
        """How often the scheduler took a core away from this process."""


class SystemClock:
    """The clocks of the operating system."""

    cpu_ns = staticmethod(time.process_time_ns)
    wall_ns = staticmethod(time.perf_counter_ns)

    @staticmethod
    def switches() -> int:
        import resource  # not on every system, and needed only with several threads

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True)
class Timing:
    """One candidate of a measurement.

    Args:
        seconds: 15th percentile of the time of one call.
        lo_s: lower end of the 95 % bootstrap interval of ``seconds``, within this run.
        hi_s: upper end.
        ratio: ``seconds`` over those of the yardstick of the same run. Trust this one across runs.
        lo: lower end of the 95 % bootstrap interval of ``ratio``.
        hi: upper end.
        n: samples kept.
        noisy: the interval of the ratio (of the seconds, for a candidate alone) is wider than +-3 %, or there
            were too few rounds to tell.
    """

    seconds: float
    lo_s: float
    hi_s: float
    ratio: float
    lo: float
    hi: float
    n: int
    noisy: bool


@dataclass(frozen=True)
class Measurement:
    """What :func:`measure` found.

    Args:
        yardstick: the candidate all ratios refer to.
        threads: threads each call was allowed.
        rounds: how often every candidate was visited.
        dropped: samples thrown away because a clock stood still or ran backwards.
        timings: by candidate, the yardstick among them.
    """

    yardstick: str
    threads: int
    rounds: int
    dropped: int
    timings: dict[str, Timing]

    @property
    def noisy(self) -> bool:
        """Whether any candidate is."""
        return any(t.noisy for t in self.timings.values())

    def to_json(self) -> dict[str, Any]:
        """JSON object that ``from_json`` reads back without loss."""
        return asdict(self)

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "Measurement":
        """Read what ``to_json`` wrote.

        Raises:
            ArtifactError: ``obj`` is not a measurement.
        """
        try:
            timings = {str(k): Timing(**v) for k, v in obj["timings"].items()}
            numbers = [x for t in timings.values() for x in (t.seconds, t.lo_s, t.hi_s, t.ratio, t.lo, t.hi)]
            if not all(math.isfinite(x) and x >= 0 for x in numbers) or obj["yardstick"] not in timings:
                raise ValueError("a negative or infinite time, or no yardstick")
            return cls(**{**obj, "timings": timings})
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise ArtifactError(f"not a measurement: {e}") from e


@dataclass
class _Series:
    """The samples of one candidate, in seconds per call, one list per visit."""

    call: Callable[[], Any]
    calls: int = 1  # calls per sample
    samples: int = 1  # samples per visit
    visits: list[list[float]] = field(default_factory=list)


def measure(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    yardstick: str,
    budget_s: float = 3.0,
    rel: float = 0.01,
    seed: int = 0,
    threads: int = 1,
    clock: Clock | None = None,
) -> Measurement:
    """Time callables against a yardstick on a machine that may be busy.

    All candidates are visited in a new random order each round; the first call of a visit is discarded. With one
    thread the clock is the CPU time of the process, which counts *every* thread of it: runtimes must be opened
    with one thread and must not spin, and no other Python thread may be working. With more threads it is the
    wall clock, and calls during which the scheduler took a core away are left out while others are left.
    Measurements of other processes of the same user are waited for.

    Args:
        candidates: what to call, by name. The yardstick is one of them.
        yardstick: name of the candidate every ratio refers to.
        budget_s: wall seconds for everything. At least one round is made whatever it costs.
        rel: stop early when the intervals of all ratios are narrower than this, as a fraction of the ratio.
        seed: of the visiting order and the bootstrap.
        threads: threads the callables use.
        clock: time source; the operating system's by default.

    Raises:
        ConfigError: no such yardstick, or a number that makes no sense.
        TargetError: no valid sample was seen for some candidate.

    >>> found = measure({"sum": lambda: sum(range(2000))}, yardstick="sum", budget_s=0.02)
    >>> found.timings["sum"].ratio
    1.0
    """
    if yardstick not in candidates:
        raise ConfigError(f"no candidate {yardstick!r} to serve as yardstick; {did_you_mean(yardstick, candidates)}")
    if not (budget_s > 0 and rel > 0 and threads >= 1):
        raise ConfigError(f"measure(budget_s={budget_s}, rel={rel}, threads={threads}): all must be positive")
    if clock is not None:
        return _measure(candidates, yardstick, budget_s, rel, seed, threads, clock)
    with alone():
        return _measure(candidates, yardstick, budget_s, rel, seed, threads, SystemClock())


def _measure(
    candidates: Mapping[str, Callable[[], Any]],
    yardstick: str,
    budget_s: float,
    rel: float,
    seed: int,
    threads: int,
    clock: Clock,
) -> Measurement:
    rng = np.random.default_rng(seed)
    end = clock.wall_ns() + round(budget_s * 1e9)
    series = {name: _warm_up(call, threads, clock, end) for name, call in candidates.items()}
    names, rounds, dropped = list(series), 0, 0
    look = _MIN_ROUNDS
    # A round takes a visit at least, so this limit binds only when the wall clock is broken.
    limit = max(_MIN_ROUNDS, math.ceil(budget_s / _VISIT_S))
    while rounds == 0 or (rounds < limit and clock.wall_ns() < end):
        if rounds >= look:  # looking costs a bootstrap, so ever more rarely
            look = math.ceil(1.5 * look)
            if all(_width(t, len(series)) < 2 * rel for t in _timings(series, yardstick, seed).values()):
                break
        for i in rng.permutation(len(names)):
            dropped += _visit(series[names[i]], threads, clock, end)
        rounds += 1
    return Measurement(yardstick, threads, rounds, dropped, _timings(series, yardstick, seed))


def _now(threads: int, clock: Clock) -> int:
    return clock.cpu_ns() if threads == 1 else clock.wall_ns()


def _warm_up(call: Callable[[], Any], threads: int, clock: Clock, end: int) -> _Series:
    """Call a few times, and size a visit by the fastest of them."""
    fastest = math.inf
    for _ in range(_WARM_UP):
        before = _now(threads, clock)
        call()
        spent = (_now(threads, clock) - before) * 1e-9
        if spent > 0:
            fastest = min(fastest, spent)
        if clock.wall_ns() >= end:
            break
    if not math.isfinite(fastest):
        return _Series(call)
    calls = max(1, round(_SAMPLE_S / fastest))
    return _Series(call, calls, max(1, round(_VISIT_S / (fastest * calls))))


def _visit(one: _Series, threads: int, clock: Clock, end: int) -> int:
    """Record one visit; returns how many samples had to be dropped."""
    call, calls = one.call, one.calls
    call()
    kept, disturbed, dropped = [], [], 0
    for _ in range(one.samples):
        switches = clock.switches() if threads > 1 else 0
        before = _now(threads, clock)
        for _ in range(calls):
            call()
        spent = (_now(threads, clock) - before) * 1e-9 / calls
        if not spent > 0:  # also NaN
            dropped += 1
        elif threads > 1 and clock.switches() != switches:
            disturbed.append(spent)
        else:
            kept.append(spent)
        if clock.wall_ns() >= end:
            break
    one.visits.append(kept or disturbed)
    return dropped


def _timings(series: Mapping[str, _Series], yardstick: str, seed: int) -> dict[str, Timing]:
    """Percentiles, and their intervals by drawing whole rounds anew: calls of one visit are not independent."""
    for name, one in series.items():
        if not any(one.visits):
            raise TargetError(f"no valid time was seen for {name!r}: the clock stood still or ran backwards")
    rounds = len(series[yardstick].visits)
    draws = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), size=_BOOTSTRAP)
    spread = {name: _percentiles(one.visits, draws) for name, one in series.items()}
    point = {name: float(_percentiles(one.visits, np.ones((1, rounds)))[0]) for name, one in series.items()}
    out = {}
    for name, one in series.items():
        seconds, base = point[name], point[yardstick]
        lo_s, hi_s = _interval(spread[name], seconds)
        lo, hi = _interval(spread[name] / spread[yardstick], seconds / base)
        timing = Timing(seconds, lo_s, hi_s, seconds / base, lo, hi, sum(map(len, one.visits)), noisy=False)
        # The interval of a percentile of a few rounds is too narrow to be believed.
        noisy = rounds < _MIN_ROUNDS or _width(timing, len(series)) > 2 * NOISY
        out[name] = replace(timing, noisy=noisy)
    return out


def _width(t: Timing, candidates: int) -> float:
    """Relative width of the interval that counts: a ratio to oneself has none, so a lone candidate's seconds do."""
    return (t.hi_s - t.lo_s) / t.seconds if candidates == 1 else (t.hi - t.lo) / t.ratio


def _interval(draws: NDArray[np.float64], point: float) -> tuple[float, float]:
    lo, hi = np.nanpercentile(draws, [2.5, 97.5])
    return min(float(lo), point), max(float(hi), point)


def _percentiles(visits: list[list[float]], draws: NDArray[Any]) -> NDArray[np.float64]:
    """Percentile of all samples, for every row of ``draws``: how often each round counts.

    The samples are sorted once; a draw only changes how much each of them weighs.
    """
    values = np.concatenate([np.asarray(v, dtype=np.float64) for v in visits])
    rounds = np.repeat(np.arange(len(visits)), [len(v) for v in visits])
    order = np.argsort(values, kind="stable")
    values, rounds = values[order], rounds[order]
    out = np.full(len(draws), np.nan)
    for i, draw in enumerate(draws):
        weight = np.cumsum(draw[rounds])
        if weight[-1] > 0:
            out[i] = values[np.searchsorted(weight, PERCENTILE / 100 * weight[-1])]
    return out
