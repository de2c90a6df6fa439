"""Which process uses something, and whether it still lives: a dead owner must never block the next one."""

import fcntl
import functools
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from netfit.errors import ArtifactError


def this_process() -> dict[str, Any]:
    """This process as an owner: ``host``, ``pid`` and ``started``, all JSON.

    >>> is_alive(this_process())
    True
    """
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_alive(owner: Mapping[str, Any]) -> bool:
    """Whether an owner may still be running.

    Args:
        owner: what :func:`this_process` gave in some process. One on another host cannot be asked and counts as
            alive; anything that names no process counts as gone.
    """
    if not isinstance(pid := owner.get("pid"), int) or not owner.get("started"):
        return False
    return owner.get("host") != socket.gethostname() or _started(pid) == owner["started"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock while its owner is read and replaced; the system drops it with the process."""
    try:
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as e:
        raise ArtifactError(f"cannot write {folder}: {e.strerror or e}") from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _started(pid: int) -> str | None:
    """When a process started, None when it is gone; tells it from a later one with the same number.

    On Linux in clock ticks since a named boot: setting the clock must not make a live process look like another.
    """
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
