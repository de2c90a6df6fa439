"""``netfit compress``: the main job, in a run directory that an interrupted one goes on from."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netfit.errors import ConfigError, JobError

from ._compress_options import (
    AllowDrift,
    Also,
    Data,
    Epochs,
    Family,
    Finalists,
    Ignore,
    Latency,
    MaxDrop,
    Methods,
    Ray,
    Retrained,
    RunFolder,
    Sampler,
    Store,
    TargetName,
    TrainEpochs,
    Trials,
)
from ._job import working
from ._options import Json, Model, Seed, words
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.compress import Settings
    from netfit.runs import Run
    from netfit.targets import Target

__all__ = ["compress"]

METHODS = ("prune", "quantize")
FILES = {
    "policy.toml": "policy",
    "model": "network",
    "model/model.onnx": "to deploy",
    "result.json": "numbers",
    "report.html": "report",
}
MISSED = "none"  # no policy found for the one target meets the goal on the other


def compress(
    model: Model,
    /,
    *,
    data: Data,
    latency: Latency = None,
    target: TargetName = "host",
    also: Also = (),
    family: Family = None,
    max_drop: MaxDrop = None,
    trials: Trials = 60,
    sampler: Sampler = "auto",
    methods: Methods = "prune,quantize",
    train_epochs: TrainEpochs = None,
    epochs: Epochs = None,
    finalists: Finalists = 10,
    retrained: Retrained = 1,
    ignore: Ignore = (),
    store: Store = None,
    ray: Ray = None,
    run: RunFolder = None,
    allow_drift: AllowDrift = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Compress a network until it meets a measured latency."""
    chosen = words("--methods", methods, METHODS)
    from netfit.compress import Settings
    from netfit.runs import Run
    from netfit.targets import parse

    device = parse(target)
    if latency is None and family is None:
        raise ConfigError("--latency says how fast it shall become, such as --latency 0.25 (or name a --family)")
    settings = Settings(
        trials=trials, sampler=sampler, methods=chosen, epochs=epochs, finalists=finalists, retrained=retrained,
        max_drop=max_drop, ignore=tuple(ignore), family=family, also=tuple(also), store=store, ray=ray,
        train_epochs=train_epochs,
    )  # fmt: skip
    goal = 1.0 if latency is None else latency
    arguments = {"model": model, "data": data, "target": target, "latency": goal, **asdict(settings)}
    opened = Run.open(run, "compress", arguments, seed, allow_drift=allow_drift, join=True)
    error = _work(opened, device, arguments, settings)
    if opened.joined:
        facts = {"run": opened.path, "joined": True}
        return answer(as_json, facts, f"the search is done; the process that owns {opened.path} goes on")
    return _outcome(opened.path, as_json, error)


def _work(run: "Run", target: "Target", arguments: Mapping[str, Any], settings: "Settings") -> JobError | None:
    """Do the job; returns what kept it from its goal when it has a result all the same."""
    from netfit import compress as room

    goal = arguments["latency"]
    try:
        with working(run, goal) as show:
            room.compress(arguments["model"], arguments["data"], target, goal, run, settings, show)
    except JobError as e:
        if not (run.path / "result.json").is_file():
            raise
        return e
    return None


def _outcome(place: Path, as_json: bool, error: JobError | None) -> Output:
    """Write the page and say what came out; the numbers are kept even where the goal was missed."""
    from netfit.io import read_json

    result = read_json(place / "result.json")
    write_page(place)
    files = {name: place / name for name in FILES if (place / name).exists()}
    facts = result | {"run": place, "files": files, "failed": None if error is None else str(error)}
    kept = "\n".join(f"{FILES[name]:20}{path}" for name, path in files.items())
    return answer(as_json, facts, f"{_numbers(result)}\n\n{kept}", error)


def _numbers(result: Mapping[str, Any]) -> str:
    """Before and after, in one small table and a sentence."""
    base, final, goal = result["base"], result["final"], result["goal"]
    accuracy, deployed = base["accuracy"], final["accuracy_deployed"]
    rows = [
        (
            "accuracy",
            f"{100 * accuracy:.2f} %",
            f"{100 * deployed:.2f} %",
            f"{100 * (deployed - accuracy):+.2f} points",
        ),
        ("latency", si(base["latency_s"], "s"), si(final["latency_s"], "s"), f"x {final['ratio']:.3f}"),
    ]
    for label, key, unit in (("MACs", "macs", ""), ("parameters", "params", ""), ("bytes", "bytes", "B")):
        change = f"x {final[key] / base[key]:.3f}" if base[key] else ""
        rows.append((label, si(base[key], unit), si(final[key], unit), change))
    text = table(("", "before", "after", ""), rows)
    text += f"\nlatency goal {goal['latency']:g}: {'met' if final['met'] else 'not met'}"
    text += f", interval {final['ratio_lo']:.3f} to {final['ratio_hi']:.3f}"
    text += "; the machine was busy, so the times are noisy" if final["noisy"] else ""
    return text + _specialised(result.get("also"))


def _specialised(also: Mapping[str, Any] | None) -> str:
    """Best score within the goal: a row for each target it runs on, a column for each it was searched for."""
    if not also:
        return ""
    names = also["targets"]

    def cell(score: float | None) -> str:
        return MISSED if score is None else f"{100 * score:.1f} %"

    cells = [[on, *(cell(also["score"][on][name]) for name in names)] for on in names]
    columns = ("on, found for", *names)
    return f"\n\nbest score within the goal\n{table(columns, cells)}"
