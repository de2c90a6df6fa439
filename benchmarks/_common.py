"""What every benchmark needs: interleaved timing, ratios, and one way to show and keep a table."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from netfit.env import fingerprint
from netfit.io import write_json

RESULTS = Path(__file__).parent / "results"


class Ratio(NamedTuple):
    """Median of paired ratios, and the quartiles around it."""

    median: float
    low: float
    high: float


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call. The candidates take turns, so that a slow minute of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-warmup, repeats):
        for name, call in candidates.items():
            start = clock()
            call()
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds


def children_cpu() -> float:
    """Clock for work done in child processes: their CPU seconds, which other users of the machine hardly change."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def median_ratio(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """How many times the baseline something took, turn by turn."""
    ratios = [a / b for a, b in zip(seconds, baseline, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(median, low, high)


def record(name: str, rows: Sequence[Mapping[str, Any]], **meta: Any) -> Path:
    """Print a table and keep it with the machine, the versions and the date.

    Args:
        name: of the result file, ``benchmarks/results/<name>.json``.
        rows: all with the same keys.
        **meta: what holds for every row, such as the goal or the number of repeats.
    """
    cells = [[_text(value) for value in row.values()] for row in rows]
    head = list(rows[0]) if rows else []
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    print(f"\n{name}: " + ", ".join(f"{key} {_text(value):.200}" for key, value in meta.items()))
    for line in [head, *cells]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    place = RESULTS / f"{name}.json"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(place, {"name": name, "date": date, **meta, "rows": rows, "fingerprint": fingerprint()})
    return place


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
