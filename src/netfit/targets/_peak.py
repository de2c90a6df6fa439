"""Child process of `peak_memory`: ``python -m netfit.targets._peak FILE RUNTIME THREADS [X.npz]``."""

import contextlib
import gc
import json
import sys
from pathlib import Path

import numpy as np

from netfit.deploy import open_session
from netfit.errors import require


def _status(field: str) -> int:
    """A memory field of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main(path: str, runtime: str, threads: str, x: str | None = None) -> None:
    """Print the resident set before the network was loaded, and its peak after it ran."""
    require(runtime, "export")
    example = None if x is None else list(np.load(x, allow_pickle=False).values())
    gc.collect()
    # Importing may have peaked above what it left behind: start the peak anew (some containers forbid it).
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    baseline = _status("VmRSS")
    call = open_session(path, runtime, int(threads)).warm(example)
    call()
    print(json.dumps({"baseline": baseline, "peak": max(baseline, _status("VmHWM"))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
