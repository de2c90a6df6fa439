"""``netfit tradeoff``: one network under every family of methods, accuracy against every cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ._compress_options import AllowDrift, Data, Epochs, TargetName, TrainEpochs, Trials
from ._job import working
from ._options import Json, Model, Seed
from ._output import Output, answer, si, table, write_page

__all__ = ["tradeoff"]

Families = Annotated[
    str | None,
    Parameter(
        help="Points of the study, by commas: uniform-<precision>, magnitude-<share>, learned-<share>, "
        "distillation-<share> (+int8 behind them also rounds what stays), a technique of structural replacement, or "
        "mixed-<ratio> for a searched policy. A selection of all of these by default."
    ),
]
Also = Annotated[
    Sequence[str],
    Parameter(
        help="Another target to cost every network on; repeatable. systolic:32x32 and vta by default.",
        negative="",
        show_default=False,
    ),
]
RunFolder = Annotated[Path | None, Parameter(help="Run directory, new or to go on with; runs/... by default.")]


def tradeoff(
    model: Model,
    /,
    *,
    data: Data,
    target: TargetName = "host",
    families: Families = None,
    also: Also = ("systolic:32x32", "vta"),
    train_epochs: TrainEpochs = None,
    epochs: Epochs = None,
    trials: Trials = 24,
    run: RunFolder = None,
    allow_drift: AllowDrift = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Compress a network in many ways, retrain all alike, and set accuracy against every cost."""
    from netfit.compress import tradeoff as room
    from netfit.runs import Run
    from netfit.targets import parse

    device = parse(target)
    points = room.POINTS if families is None else tuple(word.strip() for word in families.split(","))
    settings = replace(room.SETTINGS, trials=trials, epochs=epochs, train_epochs=train_epochs)
    arguments = {"model": model, "data": data, "target": target, **asdict(settings), "points": points, "also": also}
    opened = Run.open(run, "tradeoff", arguments, seed, allow_drift=allow_drift)
    with working(opened, 1.0) as show:
        result = room.tradeoff(model, data, device, opened, points, tuple(also), settings, show)
    write_page(opened.path)
    return answer(as_json, result | {"run": opened.path}, _text(result, opened.path))


def _text(result: Mapping[str, Any], place: Path) -> str:
    others = result["also"]
    rows = [
        (p["name"], f"{100 * p['accuracy']:.2f} %", f"x {p['ratio']:.3f}", si(p["costs"]["file"], "B"),
         si(p["act_bytes"], "B"), *(_cost(p["on"][name]) for name in others),
         ", ".join(f"{n} {precision}" for precision, n in p["executed"].items()))
        for p in result["points"] if not p["failed"]
    ]  # fmt: skip
    text = table(("point", "accuracy", "latency", "file", "activations", *others, "executed"), rows)
    said = "\n".join(f"{finding['about']}: {finding['text']}" for finding in result["findings"])
    return f"{text}\n\n{said}\n\nreport: {place / 'report.html'}"


def _cost(cost: Mapping[str, Any]) -> str:
    """A ratio to the uncompressed network; in brackets where only the structure runs there."""
    if cost["ratio"] is None:
        return "-"
    return f"x {cost['ratio']:.3f}" if cost["runs"] else f"(x {cost['ratio']:.3f})"
