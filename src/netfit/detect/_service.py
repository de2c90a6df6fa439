"""A detector that runs for months: alerts as JSON lines, state on disk, and no line twice after a crash."""

import json
import os
import time
from pathlib import Path
from typing import Any

from netfit.detect._alerts import Alert
from netfit.detect._frame import Frame
from netfit.detect._hybrid import HybridDetector, identity
from netfit.errors import ArtifactError
from netfit.streaming import load_state, save_state

__all__ = ["Service"]

_KIND = "detect-run"


class Service:
    """Runs a detector on frames.

    The state holds how long the file of alerts was: what was written after it is cut off when the state is loaded, so
    the file of a run that was killed and resumed is that of one that was not.

    Args:
        detector: its state is what the run starts from.
        alerts: file that alerts are appended to; None keeps them in memory only.
        state: folder of the state, loaded if it is there; None keeps none.
        every_s: seconds between saves.

    Attributes:
        counts: alerts that began, by kind.
        resumed: whether a state was loaded.

    Raises:
        ArtifactError: the state is damaged.
        ConfigError: the state belongs to other settings.
    """

    def __init__(
        self, detector: HybridDetector, *, alerts: str | Path | None = None, state: str | Path | None = None,
        every_s: float = 10.0,
    ) -> None:  # fmt: skip
        self.detector = detector
        self.counts: dict[str, int] = {}
        self._alerts = None if alerts is None else Path(alerts)
        self._state = None if state is None else Path(state)
        self._every_s, self._saved = every_s, time.monotonic()
        self._written = 0
        self.resumed = self._state is not None and self._state.exists()
        if self.resumed and self._state is not None:
            found = load_state(self._state, _KIND, identity(detector))
            detector.restore_state(found["engine"])
            self._written, self.counts = int(found["written"]), dict(found["counts"])
        self._open_file()

    def take(self, frame: Frame) -> list[Alert]:
        """Work on the next rows; those up to the last one taken are skipped, so that a file may be given again."""
        fresh = frame.times > self.detector.last_time_
        if not fresh.all():
            frame = frame.rows(slice(int(fresh.argmax()) if fresh.any() else len(frame), None))
        alerts = self.detector.detect(frame) if len(frame) else []
        for alert in alerts:
            if alert.end is None:
                self.counts[alert.kind] = self.counts.get(alert.kind, 0) + 1
        self._write(alerts)
        if time.monotonic() - self._saved >= self._every_s:
            self.save()
        return alerts

    def save(self) -> None:
        """Write the state, if there is a place for it."""
        self._saved = time.monotonic()
        if self._state is not None:
            if self._alerts is not None:
                _sync(self._alerts)
            content = {"engine": self.detector.state(), "written": self._written, "counts": self.counts}
            save_state(self._state, _KIND, content, identity(self.detector))

    def _open_file(self) -> None:
        if self._alerts is None:
            return
        try:
            self._alerts.parent.mkdir(parents=True, exist_ok=True)
            with self._alerts.open("ab") as file:
                if self.resumed and file.tell() >= self._written:
                    file.truncate(self._written)
                self._written = file.tell()
        except OSError as e:
            raise ArtifactError(f"cannot write {self._alerts}: {e.strerror or e}") from e

    def _write(self, alerts: list[Alert]) -> None:
        if self._alerts is None or not alerts:
            return
        data = b"".join(json_line(alert.to_json()) for alert in alerts)
        try:
            with self._alerts.open("ab") as file:
                file.write(data)
        except OSError as e:
            raise ArtifactError(f"cannot write {self._alerts}: {e.strerror or e}") from e
        self._written += len(data)


def json_line(value: Any) -> bytes:
    """A value as one line of JSON."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode() + b"\n"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
