"""``netfit detect``: fit, run and judge a detector of channels that come and go."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, Json, Seed
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.detect import Alert, Frame, HybridDetector, Service

__all__ = ["cost", "evaluate", "fit", "prometheus", "run"]

Form = Annotated[Literal["auto", "wide", "long"], Parameter(name="--format", help="Shape of the table.")]
GroupBy = Annotated[
    str | None,
    Parameter(
        help="Which channels are peers: a label of their names, a pattern with (?P<name>...), or several of them by "
        "'&'. All are, when not given."
    ),
]
Entity = Annotated[str | None, Parameter(help="What an alert is about, in the same forms, such as node.")]
Temporal = Literal["pca", "tranad", "informer", "none"]
Alerts = Annotated[Path | None, Parameter(help="File that alerts are appended to as JSON lines; standard error else.")]
State = Annotated[Path | None, Parameter(help="Folder of the state: loaded if it is there, saved every ten seconds.")]
Listen = Annotated[str | None, Parameter(help="HOST:PORT that answers /metrics for Prometheus and Grafana.")]
Model = Annotated[Path, Parameter(help="Folder of a fitted detector.")]


def fit(
    data: Annotated[Path, Parameter(help="CSV or Parquet table with a column time; - for standard input.")],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Folder of the fitted detector.")],
    group_by: GroupBy = None,
    entity: Entity = None,
    temporal: Temporal = "pca",
    eps: Annotated[str, Parameter(help="Distance of peers in units of the values, or auto.")] = "auto",
    q: Annotated[float, Parameter(help="Share of rows whose temporal score may alarm.")] = 1e-3,
    window: Annotated[Count, Parameter(help="Rows the temporal stage looks at.")] = 10,
    epochs: Annotated[Count, Parameter(help="Passes of a forecaster over the rows.")] = 5,
    absent: Annotated[Literal["ignore", "alert"], Parameter(help="Whether a vanished channel is an alert.")] = "ignore",
    form: Form = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Fit a detector to a table."""
    from netfit.detect.inputs import read_whole

    detector = _detector(group_by, entity, temporal, _eps(eps), q, window, epochs, absent, seed)
    frame = read_whole(data, form)
    detector.fit(frame)
    detector.save(out)
    facts = {
        "model": out, "rows": detector.n_rows_, "empty_rows": detector.n_empty_rows_, "channels": len(frame.columns),
        "group_by": group_by, "entity": entity, "temporal": temporal,
    }  # fmt: skip
    return answer(as_json, facts, f"{facts['rows']} rows of {facts['channels']} channels; detector: {out}")


def run(
    model: Model,
    data: Annotated[Path, Parameter(help="CSV or Parquet table with a column time; - for standard input.")],
    /,
    *,
    form: Form = "auto",
    follow: Annotated[bool, Parameter(negative="", help="Wait for rows that are still to be written.")] = False,
    speed: Annotated[
        float | None, Parameter(help="Replay at this many times real time, by the column time; at once when not given.")
    ] = None,
    alerts: Alerts = None,
    state: State = None,
    listen: Listen = None,
    run: Annotated[Path | None, Parameter(help="Run directory for a report with a card for each alert.")] = None,
    as_json: Json = False,
) -> Output:
    """Run a detector on a table or a stream; a stopped run goes on with the same command and --state."""
    from netfit.detect.inputs import read_frames

    frames = read_frames(data, form=form, follow=follow, block=1 if speed else 512)
    return _serve(model, _replayed(frames, speed), alerts, state, listen, run, as_json)


def prometheus(
    model: Model,
    /,
    *,
    url: Annotated[str, Parameter(help="Address of the server, such as http://localhost:9090.")],
    query: Annotated[str, Parameter(help="PromQL that gives one value for each series.")],
    step: Annotated[str, Parameter(help="Time between rows, such as 15s or 1m.")] = "15s",
    behind: Annotated[str, Parameter(help="How far behind the clock to stay.")] = "30s",
    since: Annotated[str | None, Parameter(help="Start this long ago, such as 1h, instead of now.")] = None,
    until_now: Annotated[bool, Parameter(negative="", help="Stop at the present instead of waiting for rows.")] = False,
    alerts: Alerts = None,
    state: State = None,
    listen: Listen = None,
    run: Annotated[Path | None, Parameter(help="Run directory for a report with a card for each alert.")] = None,
    as_json: Json = False,
) -> Output:
    """Run a detector on a Prometheus server."""
    from netfit.detect.inputs import Prometheus

    server = Prometheus(url, query, duration("--step", step))
    now = time.time() - duration("--behind", behind)
    start = None if since is None else now - duration("--since", since)
    if until_now:
        if start is None:
            raise ConfigError("--until-now needs --since: how long ago to start")
        frames = server.frames(start, now)
    else:
        frames = server.follow(start, duration("--behind", behind))
    return _serve(model, frames, alerts, state, listen, run, as_json)


def evaluate(
    scores: Annotated[Path, Parameter(help="Table of scores: a column time, and one or more columns of scores.")],
    labels: Annotated[Path, Parameter(help="Table of labels: the same rows, 0 and 1.")],
    /,
    *,
    adjusted: Annotated[
        bool, Parameter(negative="", help="Also the point-adjusted F1, which random scores excel in.")
    ] = False,
    run: Annotated[Path | None, Parameter(help="Run directory for a report.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Judge scores by labels, beside random scores."""
    from netfit.detect import metrics
    from netfit.detect.inputs import read_whole

    found, truth = read_whole(scores), read_whole(labels)
    if len(found) != len(truth) or (found.times != truth.times).any():
        raise ConfigError(f"{scores} and {labels} are not of the same rows: give one label for each score")
    score, label = found.values.max(axis=1), truth.values.max(axis=1)
    rows = metrics.summary(label, score, seed, adjusted)
    facts = {"kind": "detect-eval", "rows": len(found), "positives": float((label > 0).mean()), "metrics": rows}
    place = _report(run, "detect-eval", {"scores": str(scores), "labels": str(labels)}, seed, facts)
    names = list(rows[0])
    lines = [[str(row["name"]), *(f"{row[n]:.3f}" for n in names[1:])] for row in rows]
    text = table([n.replace("_", " ") for n in names], lines)
    return answer(as_json, facts, text + (f"\nreport: {place / 'report.html'}" if place else ""))


def cost(
    model: Model,
    /,
    *,
    channels: Annotated[float | None, Parameter(help="How many there are, such as 1e5; those seen, else.")] = None,
    groups: Annotated[int | None, Parameter(help="Of one size; those seen, else.")] = None,
    as_json: Json = False,
) -> Output:
    """What one row costs, stage by stage."""
    from netfit.detect import HybridDetector

    found = HybridDetector.load(model).cost(None if channels is None else int(channels), groups)
    columns = ("stage", "FLOP a row", "state", "parameters", "activations")
    rows = [
        (s.stage, si(s.flops), si(s.state_bytes, "B"), si(s.parameters), si(s.activations)) for s in found.stages
    ]  # fmt: skip
    text = f"{found.channels} channels in {found.groups} groups\n{table(columns, rows)}"
    return answer(as_json, found.to_json(), text)


def duration(option: str, text: str) -> float:
    """Seconds of ``15s``, ``5m``, ``2h`` or ``1d``.

    Raises:
        ConfigError: it is something else.

    >>> duration("--step", "1.5m"), duration("--step", "10")
    (90.0, 10.0)
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"{option} {text!r}: give a time such as 15s, 5m or 2h")
    return seconds


def grouping(text: str | None) -> Any:
    """``rack&metric`` as a list, ``label:job`` as a label."""
    if text is None:
        return None
    parts = [part.strip().removeprefix("label:") for part in text.split("&")]
    return parts[0] if len(parts) == 1 else parts


def _eps(text: str) -> Any:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError as e:
        raise ConfigError(f"--eps {text!r}: give a number, or auto") from e


def _detector(
    group_by: str | None, entity: str | None, temporal: str, eps: Any, q: float, window: int, epochs: int, absent: Any,
    seed: int,
) -> "HybridDetector":  # fmt: skip
    from netfit.detect import SPOT, Forecaster, HybridDetector, PeerDBSCAN, WindowPCA

    stage: Any = None
    if temporal == "pca":
        stage = WindowPCA(window=window, refit=max(288, 4 * window))
    elif temporal != "none":
        stage = Forecaster(kind="tranad" if temporal == "tranad" else "informer", window=window, epochs=epochs)
    return HybridDetector(
        grouping(group_by), entity=grouping(entity), peer=PeerDBSCAN(eps=eps), temporal=stage, threshold=SPOT(q=q),
        absent=absent, seed=seed,
    )  # fmt: skip


def _replayed(frames: Iterator["Frame"], speed: float | None) -> Iterator["Frame"]:
    """The rows at the pace of their times, so many times as fast."""
    if speed is not None and not speed > 0:
        raise ConfigError(f"--speed {speed}: give a positive number")
    begin: tuple[float, float] | None = None
    for frame in frames:
        if speed is not None:
            begin = begin or (time.monotonic(), float(frame.times[0]))
            wait = begin[0] + (float(frame.times[0]) - begin[1]) / speed - time.monotonic()
            if wait > 0:
                time.sleep(wait)
        yield frame


def _serve(
    model: Path, frames: Iterator["Frame"], alerts: Path | None, state: Path | None, listen: str | None,
    run: Path | None, as_json: bool,
) -> Output:  # fmt: skip
    """Work through the rows; a signal to stop saves the state first."""
    from netfit.detect import Endpoint, HybridDetector, Service

    service = Service(HybridDetector.load(model), alerts=alerts, state=state)
    told: list[Alert] = []
    with ExitStack() as stack:
        if listen is not None:
            endpoint = stack.enter_context(Endpoint(service, listen))
            print(f"netfit: numbers at {endpoint.url}", file=sys.stderr, flush=True)
        cards = _Cards(run, service.detector) if run else None
        stopped = _until_signalled(service, frames, alerts is None, told, cards)
    service.save()
    ended = {a.id for a in told if a.end is not None}
    facts: dict[str, Any] = {
        "kind": "detect", "rows": service.detector.n_rows_, "empty_rows": service.detector.n_empty_rows_,
        "alerts": dict(sorted(service.counts.items())), "open": len(service.detector.open_alerts()),
        "ended": len(ended), "stopped": stopped, "resumed": service.resumed,
    }  # fmt: skip
    place = cards.write(facts, told) if cards else None
    raised = ", ".join(f"{n} {kind}" for kind, n in facts["alerts"].items()) or "none"
    text = f"{facts['rows']} rows; alerts: {raised}; {facts['open']} open"
    return answer(as_json, facts, text + (f"\nreport: {place / 'report.html'}" if place else ""))


def _until_signalled(
    service: "Service", frames: Iterator["Frame"], loud: bool, told: list["Alert"], cards: "_Cards | None"
) -> bool:
    """Returns whether SIGTERM or an interrupt ended it."""
    stop = threading.Event()

    def halt(*_: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, halt) if threading.current_thread() is threading.main_thread() else None
    try:
        for frame in frames:
            if cards:
                cards.keep(frame)
            for alert in service.take(frame):
                told.append(alert)
                if loud:
                    print(json.dumps(alert.to_json(), ensure_ascii=False), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return True
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    return stop.is_set()


class _Cards:
    """Gathers what the report's cards show: rows around each alert. Keeps the last rows only."""

    ROWS = 4000

    def __init__(self, place: Path, detector: "HybridDetector") -> None:
        self._place, self._detector = place, detector
        self._frames: list[Frame] = []

    def keep(self, frame: "Frame") -> None:
        self._frames.append(frame)
        while sum(map(len, self._frames)) - len(self._frames[0]) > self.ROWS:
            self._frames.pop(0)

    def write(self, facts: dict[str, Any], told: list["Alert"]) -> Path:
        from netfit.detect.cards import cards

        found = facts | {"cards": cards(self._detector, told, self._frames)}
        place = _report(self._place, "detect", {}, 0, found)
        assert place is not None
        return place


def _report(
    place: Path | None, command: str, arguments: dict[str, Any], seed: int, facts: dict[str, Any]
) -> Path | None:
    """A run directory with the result and its page."""
    if place is None:
        return None
    from netfit.runs import Run

    with Run.open(place, command, arguments, seed) as opened:
        opened.write_result(facts)
    write_page(opened.path)
    return opened.path
