"""Where a study is kept: SQLite by default, or any Optuna storage.

SQLite runs with a write-ahead log and ``synchronous=NORMAL``: a killed process loses nothing, and a trial costs about
half of what SQLite's defaults cost on a slow disk. A write-ahead log needs a local disk; on a network file
system use a journal.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ArtifactError, ConfigError
from ._owner import alive, me

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage

__all__ = ["connect", "open_storage"]

_JOURNALS = (".log", ".journal", ".jsonl")
_DATABASES = (".db", ".sqlite", ".sqlite3")
_FOREIGN_GRACE_S = 30.0


def open_storage(where: str | os.PathLike[str] | BaseStorage) -> BaseStorage:
    """The Optuna storage of a place.

    Args:
        where: a directory (holds ``study.db``), a ``.db``/``.sqlite`` file, a ``.log``/``.journal``/``.jsonl`` journal,
            an SQLAlchemy URL such as ``postgresql://host/name``, or an Optuna storage object.

    Raises:
        ConfigError: the URL or the file's ending is not understood.
        ArtifactError: the file is damaged, is no study, or cannot be written.
    """
    from optuna.storages import BaseStorage

    if isinstance(where, BaseStorage):
        return where
    text = os.fspath(where)
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
    elif "://" in text:
        return _database(text)
    path = Path(text)
    if path.suffix in _JOURNALS:
        return _guard(path, lambda: _journal(path))
    if path.suffix and path.suffix not in _DATABASES and not path.is_dir():
        known = ", ".join(_DATABASES + _JOURNALS)
        raise ConfigError(f"{path}: a study is a directory, a database URL or a file ending in {known}")
    file = path if path.suffix in _DATABASES else path / "study.db"
    return _guard(file, lambda: _sqlite(file))


def connect(path: Path, isolation_level: Literal["IMMEDIATE"] | None = "IMMEDIATE") -> sqlite3.Connection:
    """An SQLite connection with a write-ahead log that waits a minute for other writers."""
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=isolation_level)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _guard(path: Path, make: Callable[[], BaseStorage]) -> BaseStorage:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make()
    except Exception as e:  # a damaged file can raise anything in the reader behind Optuna
        raise ArtifactError(f"cannot open the study {path}: {str(e).splitlines()[0]}") from e


def _sqlite(path: Path) -> RDBStorage:
    import sqlalchemy
    from optuna.storages import RDBStorage

    with _OwnedLock(path):  # two processes that make the same tables disturb each other
        storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"creator": lambda: connect(path, None)})
    # Optuna reads a trial's state and then sets it; PostgreSQL locks the row in between, SQLite knows no such lock.
    # Taking the write lock before the read keeps two drivers from taking the same waiting trial.
    sqlalchemy.event.listen(storage.engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def _database(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url)
    except (ImportError, SQLAlchemyError) as e:
        raise ConfigError(f"cannot open the study {url}: {str(e).splitlines()[0]}") from e


def _journal(path: Path) -> JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: Any = _OwnedLock(path)
    path.touch()
    with lock:
        _cut_torn_line(path)
    # Only acquire and release are called, so the class need not derive from one that costs an import of Optuna.
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_torn_line(path: Path) -> None:
    """Drop a last line that a kill left without its end; the next line would be glued to it."""
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)


class _OwnedLock:
    """Optuna's journal lock (a symbolic link), whose text names its owner so that a dead one's lock is cleared.

    Optuna's own lock waits 30 s before it takes a lock that nobody releases. Other Optuna processes respect this
    one, because they look for the same link.
    """

    def __init__(self, path: Path) -> None:
        self._link = Path(f"{path}.lock")

    def acquire(self) -> bool:
        """Take the lock, waiting for a living owner."""
        pause, since, holder = 0.001, time.monotonic(), ""
        while True:
            try:
                self._link.symlink_to(me())
                return True
            except FileExistsError:
                pass
            seen = self._holder()
            if seen != holder:
                since, holder = time.monotonic(), seen
            if holder and self._stale(holder, time.monotonic() - since):
                self._clear(holder)
            else:
                time.sleep(pause)
                pause = min(2 * pause, 0.1)

    def release(self) -> None:
        """Give the lock back."""
        self._link.unlink(missing_ok=True)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _holder(self) -> str:
        try:
            return str(self._link.readlink())
        except OSError:
            return ""  # released meanwhile

    def _stale(self, holder: str, waited_s: float) -> bool:
        if holder.count("|") == 2:
            return not alive(holder)
        return waited_s > _FOREIGN_GRACE_S  # made by Optuna itself: it names no owner

    def _clear(self, holder: str) -> None:
        # Several waiters may get here: renaming lets one of them have the link, and shows which link it was.
        aside = Path(f"{self._link}.{uuid.uuid4().hex}")
        with contextlib.suppress(OSError):
            self._link.rename(aside)
            if str(aside.readlink()) != holder:  # taken anew since we looked: give it back
                self._link.symlink_to(aside.readlink())
            aside.unlink()
