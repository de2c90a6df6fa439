"""The run directory: ``run.json``, ``log.txt``, ``stages/*.json`` and ``result.json``."""

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netfit.env import fingerprint, host_id
from netfit.errors import ArtifactError, ConfigError, JobError
from netfit.io import read_json, remove_temporaries, write_json

from ._owner import is_alive, locked, this_process
from ._resume import plain, resumed

_POLL_S = 0.2
_STAGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Run:
    """One job's directory. Use as a context manager: leaving it records how the job ended.

    Attributes:
        path: the directory.
        seed: the job's seed.
        joined: another process owns the run; this one only helps it: its stages wait for the owner's results, and
            leaving it records nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for attempt in range(2):
    ...         with Run.open(Path(folder) / "r", "demo", {"bits": 8}, seed=0) as run:
    ...             answer = run.stage("think", lambda: {"answer": 42, "attempt": attempt})
    >>> answer
    {'answer': 42, 'attempt': 0}
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.seed: int = state["seed"]
        self.joined = False
        self._state = state

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        command: str,
        arguments: Mapping[str, Any],
        seed: int,
        *,
        allow_drift: bool = False,
        join: bool = False,
    ) -> Self:
        """Start a run, or go on with the one that is there.

        Args:
            path: the run's directory; None makes a new one, ``runs/<command>-<date>-<time>``.
            command: what runs, such as ``"compress"``.
            arguments: JSON-able; a resumed run must have been started with the same ones.
            seed: the job's seed.
            allow_drift: go on although versions, processor or settings differ from the run's first start.
            join: help the process that uses the directory instead of being refused.

        Raises:
            ConfigError: another process uses the directory (and is not to be joined), it holds something else, or
                the command, an argument, the seed or the machine's fingerprint is not the one it was started with.
            ArtifactError: the directory cannot be written, or its run.json is damaged.
        """
        wanted = plain({"command": command, "arguments": dict(arguments), "seed": seed})
        folder = _made(command, path)
        with locked(folder):
            state = resumed(folder, wanted, allow_drift, join) or wanted | {"created": _now()}
            owner = state.get("owner") or {}
            if join and is_alive(owner) and owner != this_process():
                run = cls(folder, state)
                run.joined = True
                return run
            remove_temporaries(folder)
            state |= {
                "fingerprint": plain(fingerprint()),
                "opened": _now(),
                "status": "running",
                "error": None,
                "owner": this_process(),
            }
            run = cls(folder, state)
            run._save()
        return run

    @property
    def arguments(self) -> dict[str, Any]:
        """What the run was started with."""
        return dict(self._state["arguments"])

    def stage(self, name: str, fn: Callable[[], Any]) -> Any:
        """Run a part of the job once: a finished stage is read back when the run is resumed.

        Args:
            name: letters, digits, dots, dashes and underscores.
            fn: returns what JSON can hold; larger things go to files of the run directory.

        Returns:
            The result as JSON gives it back (tuples are lists), the same in the first and in later runs.

        Raises:
            ConfigError: the name cannot be a file name.
            ArtifactError: the result cannot be written, or the kept one is damaged.
            JobError: in a joined run, the owner ended without having done the stage.
        """
        if not _STAGE.fullmatch(name):
            raise ConfigError(f"stage name {name!r} may hold letters, digits, '.', '_' and '-' only")
        place = self.path / "stages" / f"{name}.json"
        if self.joined:
            self._wait(name, place)
        if not place.exists():
            self.log(f"stage {name}: started")
            start = time.monotonic()
            result = fn()
            seconds = round(time.monotonic() - start, 3)
            write_json(place, {"stage": name, "finished": _now(), "seconds": seconds, "result": result})
            self.log(f"stage {name}: done in {seconds} s")
        kept = read_json(place)
        if not isinstance(kept, dict) or "result" not in kept:
            raise ArtifactError(f"{place} holds no stage result; remove it to run the stage again")
        return kept["result"]

    def _wait(self, name: str, place: Path) -> None:
        """Wait until the owner of a joined run has done a stage."""
        while not place.exists():
            if not is_alive(read_json(self.path / "run.json").get("owner") or {}):
                raise JobError(
                    f"the process that owned {self.path} ended before its stage {name!r}; "
                    "the same command takes it over"
                )
            time.sleep(_POLL_S)

    def log(self, text: str) -> None:
        """Append a line with the time to ``log.txt``."""
        line = f"{_now()} {text}".replace("\n", "\n  ")
        try:
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as e:
            raise ArtifactError(f"cannot write {self.path / 'log.txt'}: {e.strerror or e}") from e

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``: the result, the command, arguments, seed, host and versions.

        Args:
            result: JSON-able; its keys may not be those that the run writes.

        Raises:
            ConfigError: a key is taken.
            ArtifactError: the file cannot be written.
        """
        made_with = self._state["fingerprint"]
        head = {key: self._state[key] for key in ("command", "arguments", "seed")}
        head |= {"host": host_id(), "versions": {"netfit": made_with["netfit"], **made_with["packages"]}}
        if taken := sorted(head.keys() & result.keys()):
            raise ConfigError(f"a result cannot have a key {taken[0]!r}: the run writes that itself")
        write_json(self.path / "result.json", head | dict(result))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.joined:
            return
        self._state |= {"status": _status(error), "owner": None, "ended": _now()}
        if error is not None and self._state["status"] != "done":
            self._state["error"] = f"{type(error).__name__}: {error}"
        try:
            self._save()
        except ArtifactError as e:
            if error is None:
                raise
            error.add_note(str(e))  # a full disk must not hide what went wrong first

    def _save(self) -> None:
        write_json(self.path / "run.json", self._state)


def _status(error: BaseException | None) -> str:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "done"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _made(command: str, path: str | Path | None) -> Path:
    """The run's directory, there now; a new name is claimed by making it, so two processes never share one."""
    stem = f"{command}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path("runs") / stem if path is None else Path(path)
    try:
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        for number in range(2, 1000):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
            folder = folder.with_name(f"{stem}-{number}")
    except OSError as e:
        raise ArtifactError(f"cannot make the run directory {folder}: {e.strerror or e}") from e
    raise ArtifactError(f"cannot make the run directory {folder}: too many of that second are there")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
