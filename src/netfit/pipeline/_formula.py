"""Closed forms for a free network and equal stages; what users compare today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._costs import StageCosts
from ._schedule import Schedule

__all__ = ["Formula", "formula"]


@dataclass(frozen=True)
class Formula:
    """What the closed form of a schedule says.

    Attributes:
        seconds: makespan of one step, or the time between steps where ``steady`` is set.
        bubble: idle share of all device time.
        peak: activations kept on the fullest device, in the unit of ``activation_bytes``.
        exact: whether the simulated table agrees to rounding for these sizes and times.
        steady: the time holds between steps that follow each other, not for one alone.
    """

    seconds: float
    bubble: float
    peak: float
    exact: bool
    steady: bool = False


@dataclass(frozen=True)
class _Case:
    """Sizes and times of one device, as the formulas name them."""

    p: int
    m: int
    v: int
    f: float
    b: float
    w: float

    @property
    def x(self) -> float:
        return self.b + self.w


def formula(schedule: Schedule, costs: StageCosts) -> Formula | None:
    """The formula of the schedule's family, None when nobody knows one."""
    known = _FAMILIES.get(schedule.family)
    if known is None:
        return None
    costs = costs.for_stages(schedule.stages)
    home = np.array(schedule.placement[0])
    f, b, w, act = (float(np.bincount(home, a, schedule.devices).max())
                    for a in (costs.t_f, costs.t_b, costs.t_w, costs.activation_bytes))  # fmt: skip
    case = _Case(schedule.devices, schedule.microbatches, schedule.chunks, f, b, w)
    found = known(case)
    if found is None:
        return None
    seconds, peak, exact = found
    even = all(
        np.ptp(a) <= 1e-12 * a.max() for a in (costs.t_f, costs.t_b, costs.t_w, costs.activation_bytes) if a.max()
    )
    bubble = 1.0 - case.m * (f + b + w) / seconds
    return Formula(seconds, bubble, peak * act, exact and even, schedule.family in ("zb-h2", "zb-v"))


_Found = tuple[float, float, bool] | None  # seconds, microbatches of a whole device, exact?


def _gpipe(c: _Case) -> _Found:
    return (c.m + c.p - 1) * (c.f + c.x), c.m, True


def _one_f_one_b(c: _Case) -> _Found:
    return (c.m + c.p - 1) * (c.f + c.x), min(c.m, c.p), True


def _interleaved(c: _Case) -> _Found:
    if c.v == 1:
        return _one_f_one_b(c)
    peak = min((2 * (c.p - 1) + (c.v - 1) * c.p + 1) / c.v, c.m)
    return (c.m + (c.p - 1) / c.v) * (c.f + c.x), peak, True


def _zb_h1(c: _Case) -> _Found:
    # With fewer microbatches than devices there is one W to do after the last B, no more.
    seconds = (c.m + c.p - 1) * (c.f + c.b) + c.w * max(1, c.m - c.p + 1)
    return seconds, min(c.m, c.p), c.w <= c.b


def _zb_h2(c: _Case) -> _Found:
    return c.m * (c.f + c.x) + (c.p - 1) * max(c.f + c.b - 2 * c.w, 0.0), min(c.m, 2 * c.p - 1), False


def _zb_v(c: _Case) -> _Found:
    return (c.m * (c.f + c.x), min(c.m, c.p), False) if c.f == c.b == c.w else None


def _controlled(bubble: float, memory: float) -> Callable[[_Case], _Found]:
    """Published for equal times: shares of 1F1B's bubble and of its activations."""

    def found(c: _Case) -> _Found:
        if not c.f == c.b == c.w:
            return None
        return c.m * (c.f + c.x) + bubble * (c.p - 1) * (c.f + c.x), c.p * memory, False

    return found


def _chimera(c: _Case) -> _Found:
    if c.m == c.p:
        return c.p * c.f + (2 * c.p - 2) * c.x, c.p, c.x >= c.f
    if c.m < c.p:
        return None
    # Published as bubble (p-2)/(2m+p-2) of slots that are equally long; it assumes that a backward takes a forward.
    seconds = (2 * c.m + c.p - 2) * (c.f + c.x) / 2
    return seconds, c.p, c.f == c.x and c.m % c.p == 0


def _dualpipe(c: _Case, ranks: int) -> _Found:
    bubble = max(ranks / 2 - 1, 0) * (c.f + c.x + c.x - 3 * c.w)
    return c.m * (c.f + c.x) + bubble, ranks + 1, False


_FAMILIES: dict[str, Callable[[_Case], _Found]] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
    "zb-h1": _zb_h1,
    "zb-h2": _zb_h2,
    "zb-v": _zb_v,
    "v-half": _controlled(1 / 2, 1 / 2),
    "v-min": _controlled(2 / 3, 1 / 3),
    "chimera": _chimera,
    "dualpipe": lambda c: _dualpipe(c, c.p),
}
