"""One measurement at a time on this machine, whoever asks: two at once would time each other."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["alone"]


@contextlib.contextmanager
def alone(folder: Path | None = None) -> Iterator[None]:
    """Hold the machine's measuring lock; waits for other processes and threads, and ends with its process.

    Args:
        folder: where the lock lies; the user's cache of netfit by default. Where it cannot be made, as on a
            read-only system, nobody is waited for.
    """
    if folder is None:
        import pooch

        folder = Path(pooch.os_cache("netfit"))
    handle = None
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "measure.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
