"""Memory as the operating system sees it, and work done in a child process to look at it."""

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from netfit.errors import ConfigError, NetfitError, TargetError, TargetUnavailable

__all__ = ["in_child", "restart_peak", "status", "tune_allocator"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_PIPE = 65536


def tune_allocator(mmap_threshold: int = 1 << 20) -> bool:
    """Make the C library hand freed activations back to the system, so that a smaller peak is smaller in fact.

    By default glibc raises the size from which it maps memory to what was last freed, and keeps what is below: the
    resident set of a CPU training then stays at its highest, 1.6 times what torch asks for, whatever is compressed.
    The price is page faults: more CPU time for small activations.

    Args:
        mmap_threshold: allocations of at least this many bytes are mapped and unmapped singly, 4096 or more.

    Returns:
        Whether it was done; only glibc can.

    Raises:
        ConfigError: the threshold is below 4096 or above 32 MiB, which is glibc's limit.
    """
    if not 4096 <= mmap_threshold <= 32 << 20:
        raise ConfigError(f"mmap_threshold={mmap_threshold} bytes: glibc takes 4096 to {32 << 20}")
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_MMAP_THRESHOLD, mmap_threshold) and libc.mallopt(_TRIM_THRESHOLD, mmap_threshold))
    return False


def status(field: str) -> int:
    """A memory field of this process, in bytes.

    Raises:
        TargetUnavailable: the system has no such thing.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise TargetUnavailable(f"process memory is read from Linux's /proc, and this is {sys.platform}")


def restart_peak() -> int:
    """Give back what is free, start the peak (VmHWM) anew, and return the resident set of now."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError):  # some containers forbid it: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run something in a forked child with one thread and return its answer, which JSON must be able to hold.

    The child has everything this process has, so closures need no pickling, and leaves no trace here.

    Raises:
        TargetError: the child was killed, or failed.
        TargetUnavailable: this system has no fork.
    """
    if not hasattr(os, "fork"):
        raise TargetUnavailable(f"a measurement in a child process needs fork, and this is {sys.platform}")
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer(write, work)
    os.close(write)
    parts = []
    with os.fdopen(read, "rb") as pipe:
        while part := pipe.read(_PIPE):
            parts.append(part)
    _, code = os.waitpid(child, 0)
    if os.WIFSIGNALED(code):
        raise TargetError(f"the measured process was killed by signal {os.WTERMSIG(code)} (out of memory?)")
    answer: dict[str, Any] = json.loads(b"".join(parts) or b'{"error": "it gave no answer"}')
    if "error" in answer:
        raise TargetError(f"the measured step failed: {answer['error'][:300]}")
    return answer


def _answer(write: int, work: Callable[[], dict[str, Any]]) -> None:
    """Never returns: the child must not run what its parent would do next."""
    try:
        torch.set_num_threads(1)  # OpenMP's threads did not survive the fork
        found = work()
    except NetfitError as e:
        found = {"error": str(e)}
    except BaseException as e:
        found = {"error": f"{type(e).__name__}: {' '.join(str(e).split())}"}
    try:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(found).encode())
    finally:
        os._exit(0)
