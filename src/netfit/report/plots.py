"""The plots of the reports: data in, SVG text out. Needs matplotlib (extra ``report``)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from netfit.errors import require

from ._svg import BEFORE, INK, MUTED, PALE, SERIES, clip_name, draw

__all__ = ["bars_grouped", "heat_map", "lines", "policy_strip", "scatter_pareto"]

Point = tuple[float, float]

_MARKERS = "osD^vP"
_IN_THE_RACE = 1.1  # times the best, somewhere
_ROW = 15.5  # height of one layer's row, user units
# A precision keeps its colour in every report; the text beside each bar says it again.
_PRECISION_ORDER = ("int8", "fp32", "bf16", "fp16", "int4")


def scatter_pareto(
    groups: Mapping[str, Sequence[Point]],
    *,
    front: Sequence[Point] = (),
    chosen: Point | None = None,
    goal: float | None = None,
    xlabel: str = "latency / original latency",
    ylabel: str = "accuracy",
    log: bool = False,
) -> str:
    """Cost against quality of every trial, one colour and marker per group.

    Args:
        groups: name -> (x, y) of its trials; x is to be small, y large.
        front: the trials nobody beats in both; joined by steps.
        chosen: the trial the run went on with; ringed and named.
        goal: the largest x allowed; the side that meets it is marked.
        log: both axes logarithmic.
    """

    def paint(figure: Any, ax: Any) -> None:
        size = 4.6 if sum(map(len, groups.values())) < 200 else 3.2
        if log:
            _logarithmic(ax)
        for i, (name, points) in enumerate(groups.items()):
            xy = [p for p in points if _finite(*p)]
            above = 2 + 1 / (1 + len(xy))  # a small group is not buried under a large one
            style = {"color": _colour(i), "ms": size, "mew": 0, "alpha": 0.75, "zorder": above}
            ax.plot(*_columns(xy), _MARKERS[i % 6], label=name, **style)
        steps = sorted(p for p in front if _finite(*p))
        if steps:
            ax.plot(*_columns(steps), color=INK, lw=1.3, ds="steps-post", label="Pareto front", zorder=3)
        if goal is not None and math.isfinite(goal):
            _mark_goal(ax, goal)
        if chosen is not None and _finite(*chosen):
            _mark_chosen(ax, chosen)
        ax.grid(True)
        _label(figure, ax, xlabel, ylabel, legend=True)

    return draw(265, paint)


def bars_grouped(names: Sequence[str], series: Mapping[str, Sequence[float]], *, xlabel: str) -> str:
    """Horizontal bars, one row per name and one bar per series in it; the first series is the pale one."""

    def paint(figure: Any, ax: Any) -> None:
        thick = 0.8 / max(len(series), 1)
        for i, (label, values) in enumerate(series.items()):
            rows = [r - 0.4 + thick * (i + 0.5) for r in range(len(names))]
            ax.barh(rows, [v if _finite(v) else 0.0 for v in values], thick * 0.92, label=label, color=_bar_colour(i))
        ax.grid(True, axis="x")
        _rows(ax, names)
        _label(figure, ax, xlabel, "", legend=True)

    return draw(_rows_height(len(names)), paint)


def policy_strip(layers: Sequence[tuple[str, int, int, str]]) -> str:
    """What became of each layer: a pale bar for its channels, a coloured one for those kept.

    Args:
        layers: (name, channels, kept channels, precision), in the network's order.
    """
    known = [p for p in _PRECISION_ORDER if any(layer[3] == p for layer in layers)]
    precisions = known + sorted({layer[3] for layer in layers} - set(known))
    fixed = {p: i for i, p in enumerate(_PRECISION_ORDER)}
    colours = {p: _colour(fixed.get(p, len(SERIES) - 1)) for p in precisions}

    def paint(figure: Any, ax: Any) -> None:
        widest = max((layer[1] for layer in layers), default=1)
        ax.barh(range(len(layers)), [layer[1] for layer in layers], 0.72, color=PALE)
        for precision in precisions:
            of = [(r, layer[2]) for r, layer in enumerate(layers) if layer[3] == precision]
            ax.barh([r for r, _ in of], [k for _, k in of], 0.72, color=colours[precision], label=precision)
        for row, (_, channels, kept, precision) in enumerate(layers):
            text = f"{kept}/{channels} {clip_name(precision, 8)}"
            ax.annotate(text, (channels, row), (4, 0), textcoords="offset points", va="center", size=9, color=MUTED)
        ax.set_xlim(0, widest * 1.32)  # room for the text beside the widest bar
        _rows(ax, [layer[0] for layer in layers])
        _label(figure, ax, "channels", "", legend=True)

    return draw(_rows_height(len(layers)), paint)


def heat_map(
    values: Sequence[Sequence[float]],
    x: Sequence[float],
    y: Sequence[float],
    *,
    levels: Sequence[float],
    labels: Sequence[str],
    xlabel: str,
    ylabel: str,
    chosen: Point | None = None,
) -> str:
    """A number over a plane, in steps from pale to dark.

    Args:
        values: one row per y, one column per x; at least two of each.
        x: ascending.
        y: ascending.
        levels: ascending borders of the steps; what lies above the last is darkest.
        labels: name of each step, one more than there are levels.
        chosen: a point to ring.
    """
    depth = [0.06 + 0.86 * i / len(levels) for i in range(len(levels) + 1)]

    def paint(figure: Any, ax: Any) -> None:
        borders = [-math.inf, *levels, math.inf]
        ax.contourf(x, y, values, borders, colors=[(SERIES[0], alpha) for alpha in depth])
        for label, alpha in zip(labels, depth, strict=True):
            ax.fill_between([], [], [], color=SERIES[0], alpha=alpha, lw=0, label=label)
        ax.set_xlim(min(x), max(x))
        ax.set_ylim(min(y), max(y))
        if chosen is not None and _finite(*chosen):
            _mark_chosen(ax, chosen)
        _label(figure, ax, xlabel, ylabel, legend=True)

    return draw(300, paint)


def lines(
    series: Mapping[str, tuple[Sequence[float], ...]],
    *,
    xlabel: str,
    ylabel: str,
    steps: bool = False,
    log: bool = False,
) -> str:
    """Curves, each with an optional band.

    Args:
        series: name -> (x, y) or (x, y, low, high).
        steps: a value holds until the next one, instead of a straight line between them.
        log: logarithmic x axis.
    """

    def paint(figure: Any, ax: Any) -> None:
        for i, (name, (x, y, *band)) in enumerate(series.items()):
            if band:
                ax.fill_between(x, *band, color=_colour(i), alpha=0.18, lw=0)
            marker = "" if steps or len(x) > 30 else "o"
            ax.plot(
                x,
                y,
                ls="-",
                marker=marker,
                ds="steps-post" if steps else "default",
                color=_colour(i),
                lw=1.8,
                ms=3.5,
                label=name,
            )
        ax.grid(True)
        if log:
            ax.set_xscale("log")
        else:
            ax.xaxis.get_major_locator().set_params(integer=all(v == int(v) for s in series.values() for v in s[0]))
        _label(figure, ax, xlabel, ylabel, legend=len(series) > 1)

    return draw(230, paint)


def timeline(bars: Sequence[tuple[int, str, float, float]], kinds: Mapping[str, str], *, rows: int, xlabel: str) -> str:
    """What every row did over time.

    Args:
        bars: (row, kind, start, end).
        kinds: kind -> its name in the legend; the order gives the colours.
        rows: how many there are, also those without bars.
    """

    def paint(figure: Any, ax: Any) -> None:
        for i, (kind, label) in enumerate(kinds.items()):
            mine = [(row, start, end - start) for row, k, start, end in bars if k == kind]
            if mine:
                at, left, width = zip(*mine, strict=True)
                # A hairline between neighbours without taking width from short ones.
                ax.barh(at, width, 0.8, left, color=_colour(i), label=label, edgecolor=PALE, lw=0.2)
        _rows(ax, [str(row) for row in range(rows)])
        _label(figure, ax, xlabel, "device", legend=True)

    return draw(_rows_height(rows), paint)


def race(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, flips: Sequence[float], xlabel: str) -> str:
    """Curves relative to the best at each x, on a logarithmic x axis; a curve on the bottom line is in the lead.

    Curves that are nowhere near the best are left out.

    Args:
        series: name -> (x, y); all with the same x.
        flips: x where the lead changes; marked.
    """

    def paint(figure: Any, ax: Any) -> None:
        best = [min(at) for at in zip(*(y for _, y in series.values()), strict=True)]
        relative = {name: [v / low for v, low in zip(y, best, strict=True)] for name, (_, y) in series.items()}
        near = [name for name, values in relative.items() if min(values) <= _IN_THE_RACE]
        for i, name in enumerate(near):
            style = {"color": _colour(i), "ls": ("-", "--", ":")[i // len(SERIES) % 3], "marker": _MARKERS[i % 6]}
            ax.plot(series[name][0], relative[name], lw=1.6, ms=3, label=name, **style)
        for x_flip in flips:
            ax.axvline(x_flip, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(require("matplotlib.ticker", "report").EngFormatter(sep=""))
        ax.set_ylim(0.98, 2.0)
        ax.grid(True)
        _label(figure, ax, xlabel, "time / fastest", legend=True)

    return draw(300, paint)


def roofs(
    slopes: Mapping[str, float],
    peaks: Mapping[str, float],
    points: Mapping[str, Sequence[Point]],
    *,
    xlabel: str,
    ylabel: str,
) -> str:
    """A roofline: what can be reached at each number of operations a byte, and what was.

    Args:
        slopes: bandwidth by memory level.
        peaks: operations per second by precision.
        points: (operations a byte, operations per second) by group.
    """
    top = max(peaks.values())
    x = [p[0] for group in points.values() for p in group]
    ends = min([0.25, *x]), 2 * max([top / min(slopes.values()), *x])

    def paint(figure: Any, ax: Any) -> None:
        ax.set_xscale("log")
        ax.set_yscale("log")
        for i, (name, rate) in enumerate(slopes.items()):
            ax.plot([ends[0], top / rate], [ends[0] * rate, top], color=MUTED, lw=1, ls=("-", "--", "-.", ":")[i % 4])
            ax.annotate(name, (ends[0], ends[0] * rate), (3, 2), textcoords="offset points", color=MUTED, size=9)
        for name, rate in peaks.items():
            ax.plot([rate / max(slopes.values()), ends[1]], [rate, rate], color=INK, lw=1.2)
            ax.annotate(name, (ends[1], rate), (-3, 2), textcoords="offset points", ha="right", size=9)
        for i, (name, group) in enumerate(points.items()):
            style = {"color": _colour(i), "ms": 4, "mew": 0, "alpha": 0.8}
            ax.plot(*_columns(group), _MARKERS[i // len(SERIES) % 6], label=name, **style)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(require("matplotlib.ticker", "report").EngFormatter(sep=""))
        ax.grid(True)
        _label(figure, ax, xlabel, ylabel, legend=True)

    return draw(320, paint)


def _logarithmic(ax: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")


def _mark_goal(ax: Any, goal: float) -> None:
    low, high = sorted((*ax.get_xlim(), goal))[::2]
    ax.set_xlim(low, high)
    ax.axvspan(low, goal, color=SERIES[2], alpha=0.08, lw=0, zorder=0)
    ax.axvline(goal, color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
    place = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "color": MUTED}
    ax.annotate(f"goal {goal:g}", (goal, 0), (5, 6), **place)


def _mark_chosen(ax: Any, chosen: Point) -> None:
    side = -1 if chosen[0] > sum(ax.get_xlim()) / 2 else 1
    ax.plot(*chosen, "o", color=INK, mfc="none", ms=11, mew=1.6, zorder=4)
    leader = {"arrowstyle": "-", "color": INK, "lw": 0.9, "shrinkA": 2, "shrinkB": 6}
    offset = {"xytext": (44 * side, -34), "textcoords": "offset points", "va": "center"}
    ax.annotate("chosen", chosen, ha="left" if side > 0 else "right", weight="bold", arrowprops=leader, **offset)


def _finite(*values: float) -> bool:
    return all(math.isfinite(v) for v in values)


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p[0] for p in points], [p[1] for p in points]


def _colour(i: int) -> str:
    return SERIES[i % len(SERIES)]


def _bar_colour(i: int) -> str:
    return BEFORE if i == 0 else _colour(i - 1)


def _rows_height(n: int) -> float:
    return 66 + _ROW * max(n, 1)


def _rows(ax: Any, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), [clip_name(n) for n in names], size=10)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _label(figure: Any, ax: Any, xlabel: str, ylabel: str, *, legend: bool) -> None:
    ax.set_xlabel(xlabel, loc="right")
    ax.set_title(ylabel, loc="left", pad=8)  # upright above the axis: readable on a phone
    ax.tick_params(axis="x", length=3)
    handles, names = ax.get_legend_handles_labels()
    if legend and handles:
        figure.legend(handles, [clip_name(n, 16) for n in names], loc="outside upper left", ncols=4, labelcolor=INK)
