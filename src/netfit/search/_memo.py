"""Results that were paid for once."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..env import digest, jsonable
from ..errors import ArtifactError, ConfigError
from ._storage import connect

__all__ = ["Memo"]


class Memo:
    """Costs and scores that are kept on disk, so that a repeated policy costs nothing.

    Several threads and processes may use one file at once; a memo can be sent to worker processes.

    Args:
        path: an SQLite file, made when absent; usually ``memo.db`` next to ``study.db``.

    Raises:
        ArtifactError: the file is damaged or cannot be written.

    >>> import tempfile
    >>> memo = Memo(Path(tempfile.mkdtemp()) / "memo.db")
    >>> memo.call({"net": "lenet5", "keep": [8, 16]}, lambda: 0.75), memo.call({"keep": [8, 16], "net": "lenet5"}, dict)
    (0.75, 0.75)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._pid = -1
        self._connection: sqlite3.Connection | None = None
        self._execute("CREATE TABLE IF NOT EXISTS memo (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")

    def __reduce__(self) -> "tuple[type[Memo], tuple[Path]]":
        return type(self), (self.path,)

    def __len__(self) -> int:
        return int(self._execute("SELECT count(*) FROM memo")[0][0])

    def get(self, key: Any, default: Any = None) -> Any:
        """The value kept under a key.

        Args:
            key: any JSON-able value; its digest is looked up.
            default: what to return when nothing is kept.
        """
        found = self._execute("SELECT value FROM memo WHERE key = ?", (digest(key),))
        return json.loads(found[0][0]) if found else default

    def put(self, key: Any, value: Any) -> None:
        """Keep a value under a key, in place of an earlier one.

        Args:
            key: any JSON-able value.
            value: any JSON-able value.

        Raises:
            ConfigError: the value has no JSON form.
        """
        try:
            text = json.dumps(value, default=jsonable)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"a memo keeps JSON only: {e}") from None
        self._execute("INSERT OR REPLACE INTO memo VALUES (?, ?)", (digest(key), text))

    def call(self, key: Any, compute: Callable[[], Any]) -> Any:
        """The value kept under a key; computed and kept first when there is none.

        Args:
            key: any JSON-able value that fixes the result.
            compute: called without arguments when nothing is kept.
        """
        missing = object()
        value = self.get(key, missing)
        if value is missing:
            self.put(key, compute())
            value = self.get(key)
        return value

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _execute(self, statement: str, values: tuple[str, ...] = ()) -> list[Any]:
        try:
            with self._lock:
                if self._connection is None or self._pid != os.getpid():  # SQLite must not cross a fork
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._connection, self._pid = connect(self.path), os.getpid()
                with self._connection:
                    return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as e:
            raise ArtifactError(f"cannot use the memo {self.path}: {e}") from e
