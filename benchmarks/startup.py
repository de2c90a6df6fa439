"""Start-up: how much longer than a bare Python do ``import netfit`` and ``netfit --help`` take?"""

import subprocess
import sys
from functools import partial

from ._common import children_cpu, interleave, median_ratio, record

REPEATS = 21

# name: arguments of Python, and the most times a bare start that it may take
STARTS: dict[str, tuple[list[str], float | None]] = {
    "bare": (["-c", "pass"], None),
    "import netfit": (["-c", "import netfit"], 2.0),
    "netfit --help": (["-m", "netfit", "--help"], 16.0),
    "import torch": (["-c", "import torch"], None),
}


def main() -> None:
    """Measure whole processes, in turns."""

    def start(arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    calls = {name: partial(start, arguments) for name, (arguments, _) in STARTS.items()}
    seconds = interleave(calls, REPEATS, clock=children_cpu)
    rows = []
    for name, (_, goal) in STARTS.items():
        ratio = median_ratio(seconds[name], seconds["bare"])
        verdict = "" if goal is None else "yes" if ratio.median <= goal else "NO"
        row = {"start": name, "x bare": ratio.median, "from": ratio.low, "to": ratio.high}
        rows.append(row | {"at most": goal or "", "held": verdict})
    record("startup", rows, repeats=REPEATS, clock="CPU seconds of the process")


if __name__ == "__main__":
    main()
