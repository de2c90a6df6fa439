"""One line per attempt, appended and never rewritten: files merge by concatenation and survive kills.

A torn last line, all that a kill can leave, is skipped by readers and closed by the next writer.
"""

import fcntl
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netfit.errors import ArtifactError

__all__ = ["Outcome", "Record", "Records", "valid_status"]

STATUSES = ("ok", "invalid_static", "invalid_compile", "crash", "timeout", "wrong_result", "device")


def valid_status(status: str) -> bool:
    """Whether a text is a status: ``"invalid_static:<rule>"`` or one of the others."""
    return status.partition(":")[0] in STATUSES


@dataclass(frozen=True)
class Outcome:
    """What one attempt gave.

    Args:
        status: ``"ok"``, ``"invalid_static:<rule>"``, ``"invalid_compile"``, ``"crash"``, ``"timeout"``,
            ``"wrong_result"`` or ``"device"`` (nobody answered; tried again later).
        seconds: least time of its repeats; None unless ok.
        median: of the repeats.
        noise: (median - least) / least.
        detail: what else is known, such as the first line of a compiler's error.
    """

    status: str
    seconds: float | None = None
    median: float | None = None
    noise: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """An attempt, as kept.

    Args:
        space: name of the space.
        target: what it was measured on, with the compiler: timings of others are never used.
        config: values of the knobs, in their order.
        outcome: what it gave.
        tuner: who asked for it.
        seed: of the tuner.
        time: Unix seconds.
        version: of netfit.
    """

    space: str
    target: str
    config: tuple[int, ...]
    outcome: Outcome
    tuner: str
    seed: int
    time: float
    version: str

    def line(self) -> str:
        """The record as one line of JSON."""
        body = asdict(self)
        body |= body.pop("outcome")
        return json.dumps(body, separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Record":
        """Back from what a line holds.

        Raises:
            ValueError: a field is missing or of another kind.
        """
        try:
            fields = {name: body[name] for name in ("seconds", "median", "noise")}
            numbers = {k: None if v is None else float(v) for k, v in fields.items()}
            outcome = Outcome(str(body["status"]), **numbers, detail=str(body["detail"]))
            if not valid_status(outcome.status) or (outcome.status == "ok") != (outcome.seconds is not None):
                raise ValueError(f"status {outcome.status!r} with {outcome.seconds} seconds")
            config = tuple(int(v) for v in body["config"])
            return cls(
                str(body["space"]), str(body["target"]), config, outcome, str(body["tuner"]), int(body["seed"]),
                float(body["time"]), str(body["version"]),
            )  # fmt: skip
        except (KeyError, TypeError) as e:
            raise ValueError(f"not a record: {e}") from e


class Records:
    """A file of records; any number of processes may append to it.

    Args:
        path: made when absent.

    Raises:
        ArtifactError: it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, records: Iterable[Record]) -> None:
        """Add records; they are on disk when this returns.

        Raises:
            ArtifactError: the file cannot be written.
        """
        data = "".join(record.line() for record in records).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise ArtifactError(f"cannot write {self.path}: {e.strerror or e}") from e

    def read(self) -> list[Record]:
        """All records that can be read, in their order.

        Raises:
            ArtifactError: the file cannot be read, or no line of it is a record.
        """
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as e:
            raise ArtifactError(f"cannot read {self.path}: {e.strerror or e}") from e
        found, bad = [], 0
        for line in lines:
            if line:
                try:
                    found.append(Record.from_json(json.loads(line)))
                except ValueError:
                    bad += 1
        if bad and not found and bad > 1:
            raise ArtifactError(f"{self.path} holds {bad} lines, none of which is a record of the tuner")
        return found

    def of(self, space: str, target: str) -> dict[tuple[int, ...], Outcome]:
        """Last outcome of every configuration of a space on a target; a warning tells of other targets."""
        mine, others = {}, set()
        for record in self.read():
            if record.space == space and record.target == target:
                mine[record.config] = record.outcome
            elif record.space == space:
                others.add(record.target)
        if others:
            text = f"{self.path} also holds timings of {len(others)} other targets of {space}; they are not used"
            warnings.warn(text, UserWarning, stacklevel=3)
        return {c: o for c, o in mine.items() if o.status != "device"}

    def fastest(self) -> dict[str, tuple[int, ...]]:
        """Fastest configuration of every space in the file, whatever it was measured on."""
        best: dict[str, tuple[float, tuple[int, ...]]] = {}
        for record in self.read():
            seconds = record.outcome.seconds
            if seconds is not None and seconds < best.get(record.space, (float("inf"),))[0]:
                best[record.space] = seconds, record.config
        return {space: config for space, (_, config) in best.items()}
