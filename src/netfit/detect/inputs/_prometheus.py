"""Rows from the HTTP interface of a Prometheus server."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netfit.detect._frame import Frame, unchecked
from netfit.errors import ConfigError, TargetError, TargetUnavailable

__all__ = ["Prometheus", "column_name"]

_MAX_BYTES = 512 << 20
_MAX_ROWS = 10_000  # the server's own limit is 11,000 points a series


def column_name(labels: Mapping[str, str]) -> str:
    """A channel's name from its labels, as PromQL writes it.

    >>> column_name({"__name__": "up", "job": "node", "instance": "a:1"})
    'up{instance="a:1",job="node"}'
    """
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()) if key != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"


@dataclass(frozen=True)
class Prometheus:
    """A query on a server.

    Args:
        url: such as ``"http://localhost:9090"``.
        query: PromQL that gives one value for each series, such as ``"rate(node_cpu_seconds_total[1m])"``.
        step_s: seconds between rows.
        timeout_s: of one request.

    Raises:
        ConfigError: the address is no http address, or the step is not positive.
    """

    url: str
    query: str
    step_s: float = 15.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"url {self.url!r} is no address such as http://localhost:9090")
        if not self.step_s > 0 or not self.timeout_s > 0:
            raise ConfigError(f"step_s={self.step_s}, timeout_s={self.timeout_s}: choose positive seconds")

    def range(self, start: float, end: float) -> Frame:
        """Rows of a span of time, both ends included.

        Args:
            start: Unix seconds.
            end: Unix seconds.

        Raises:
            TargetUnavailable: nobody answers.
            TargetError: the server refuses the query, or answers something else.
        """
        if (end - start) / self.step_s > _MAX_ROWS:
            raise ConfigError(
                f"{(end - start) / self.step_s:.0f} rows at once: ask for at most {_MAX_ROWS}, or a longer step"
            )
        steps = np.arange(int((end - start) / self.step_s + 1e-9) + 1, dtype=np.float64)
        clock = start + self.step_s * steps
        found = self._ask({"query": self.query, "start": start, "end": end, "step": self.step_s})
        values = np.full((len(clock), len(found)), np.nan)
        for column, series in enumerate(found):
            for moment, text in series["values"]:
                row = round((float(moment) - start) / self.step_s)
                if 0 <= row < len(clock):
                    values[row, column] = float(text)
        names = [column_name(series["metric"]) for series in found]
        return unchecked(clock, tuple(names), values)

    def frames(self, start: float, end: float) -> Iterator[Frame]:
        """Rows of a span of any length, in blocks."""
        at = start
        while at <= end + 1e-9:
            last = min(end, at + 500 * self.step_s)
            yield self.range(at, last)
            at = at + self.step_s * (int((last - at) / self.step_s + 1e-9) + 1)

    def follow(self, start: float | None = None, behind_s: float = 0.0, stop: Any = None) -> Iterator[Frame]:
        """Rows from now on, for ever; a server that is away for a while is asked again.

        Args:
            start: first row, Unix seconds; the next step when None.
            behind_s: how far behind the clock to stay, so that slow scrapes are in.
            stop: `threading.Event` that ends it; None goes on.
        """
        at = self.step_s * float(np.ceil((time.time() if start is None else start) / self.step_s))
        while stop is None or not stop.is_set():
            ready = time.time() - behind_s
            if ready < at:
                self._wait(at - ready, stop)
                continue
            last = at + self.step_s * int((ready - at) / self.step_s)
            try:
                frame = self.range(at, min(last, at + 500 * self.step_s))
            except TargetUnavailable:
                self._wait(self.step_s, stop)
                continue
            yield frame
            at += self.step_s * len(frame)

    @staticmethod
    def _wait(seconds: float, stop: Any) -> None:
        time.sleep(seconds) if stop is None else stop.wait(seconds)

    def _ask(self, arguments: Mapping[str, Any]) -> list[Any]:
        address = f"{self.url.rstrip('/')}/api/v1/query_range"
        request = urllib.request.Request(address, urllib.parse.urlencode(arguments).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                body = answer.read(_MAX_BYTES)
        except urllib.error.HTTPError as e:
            raise TargetError(f"{self.url} refuses the query: {_reason(e.read(10_000), e.code)}") from e
        except (OSError, urllib.error.URLError) as e:
            raise TargetUnavailable(f"{self.url} does not answer: {getattr(e, 'reason', e)}") from e
        try:
            data = json.loads(body)["data"]
            result: list[Any] = data["result"]
        except (ValueError, KeyError, TypeError) as e:
            raise TargetError(f"{self.url} answers something that is no result of a query: {body[:60]!r}") from e
        if data.get("resultType") != "matrix":
            raise TargetError(f"{self.url}: the query gives {data.get('resultType')!r}, not a value for each series")
        return result


def _reason(body: bytes, code: int) -> str:
    try:
        return str(json.loads(body)["error"])[:200]
    except (ValueError, KeyError, TypeError):
        return f"status {code}"
