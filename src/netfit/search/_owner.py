"""Who works on a trial or holds a lock, and whether that process still lives.

An owner is written as ``host|pid|start``. The start tells a living process from another one that was given the same
number later; it must not move when the clock is set, so Linux counts it in ticks since a named boot. Nothing can
be known of another machine's processes: they count as alive.
"""

import functools
import os
import platform
from pathlib import Path

import psutil

__all__ = ["alive", "me"]


def me() -> str:
    """This process as an owner."""
    return f"{platform.node()}|{os.getpid()}|{_start(os.getpid())}"


def alive(owner: str) -> bool:
    """Whether the process of an owner may still be running; text that names no owner is nobody."""
    host, _, rest = owner.partition("|")
    pid, _, start = rest.partition("|")
    if not pid.isdecimal() or not start:
        return False
    return host != platform.node() or _start(int(pid)) == start


def _start(pid: int) -> str | None:
    """When a process started; None when it is gone or a zombie."""
    try:
        if boot := _boot():
            # The command name, in parentheses, may hold spaces: count the fields from behind it.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else f"{boot}.{fields[18]}"
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except (OSError, psutil.Error):
        return None


@functools.cache
def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return None  # not Linux
