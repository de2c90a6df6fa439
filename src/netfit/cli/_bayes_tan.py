"""``netfit bayes tan``: a Bayesian-network classifier of a table, or the front of them beside quantized networks."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, Json, Seed
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.bayes import TANClassifier
    from netfit.bayes.tan import Split
    from netfit.runs import Run

__all__ = ["tan"]

_INTEGER_BITS = 4  # of a stored -log p: 16 nats are as good as impossible
_PENALTIES = (0.0, 3e-4, 3e-3, 1e-1)  # nats an entry: from the richest structure to the naive one
_WIDTHS = (2, 3, 4, 6)
_HIDDEN = (8, 16, 32, 64)
_PRECISIONS = ("w2a8", "w4a8", "int8")
_MLP_EPOCHS = 20


def tan(
    data: Annotated[str, Parameter(help="CSV file with a header, or the name of a data set (netfit data list).")],
    /,
    *,
    label: Annotated[str | None, Parameter(help="Column of a CSV file that holds the classes.")] = None,
    structure: Annotated[
        Literal["naive", "chow-liu", "learned"], Parameter(help="What a feature may depend on besides the class.")
    ] = "learned",
    loss: Annotated[Literal["nll", "hybrid"], Parameter(help="Counts, or counts and a margin.")] = "hybrid",
    lam: Annotated[float, Parameter(help="Weight of the margin.")] = 100.0,
    gamma: Annotated[float, Parameter(help="Margin in nats.")] = 20.0,
    size_penalty: Annotated[float, Parameter(help="Price of a table entry in a learned structure, in nats.")] = 0.0,
    bits: Annotated[
        str, Parameter(help="Bits of a table entry, 4 of them before the binary point, or INTEGER,FRACTION.")
    ] = "4",
    epochs: Annotated[Count, Parameter(help="Passes over the samples.")] = 50,
    front: Annotated[bool, Parameter(negative="", help="Sweep sizes and widths, beside quantized networks.")] = False,
    packed: Annotated[bool, Parameter(negative="", help="Let entries of the C tables share bytes.")] = False,
    run: Annotated[Path | None, Parameter(help="Run directory; runs/... by default.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Learn a classifier of a table and write it as C."""
    chosen = _bits(bits)
    split, features, classes = _split(data, label, seed)
    from netfit.runs import Run

    settings: dict[str, Any] = {"lam": lam, "gamma": gamma}
    arguments: dict[str, Any] = {"data": data, "label": label, "epochs": epochs, "front": front, "packed": packed}
    arguments |= settings
    if not front:
        settings |= {"structure": structure, "loss": loss, "size_penalty": size_penalty}
        arguments |= settings | {"bits": list(chosen)}
    with Run.open(run, "tan", arguments, seed) as opened:
        work = _front(opened, split, settings, epochs, seed, packed) if front else None
        points = work or [_single(opened, split, settings | {"bits": chosen, "epochs": epochs}, seed, packed)]
        facts = {
            "kind": "tan", "data": data, "features": features, "classes": classes, "rows": len(split.y),
            "test_rows": len(split.y_test), "points": points,
        }  # fmt: skip
        opened.write_result(facts)
    return _outcome(opened.path, as_json, facts)


def _bits(text: str) -> tuple[int, int]:
    """Read ``2`` or ``4,-2``.

    >>> _bits("2"), _bits("3,1")
    ((4, -2), (3, 1))
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    pair = (_INTEGER_BITS, numbers[0] - _INTEGER_BITS) if len(numbers) == 1 else tuple(numbers)
    if len(pair) != 2 or not 1 <= sum(pair) <= 8:
        raise ConfigError(f"--bits {text!r}: allowed are 1 to 8, or INTEGER,FRACTION such as 4,-2 with 1 to 8 together")
    return pair[0], pair[1]


def _split(name: str, label: str | None, seed: int) -> tuple["Split", list[str], list[str]]:
    """Training and test samples, the names of the features and those of the classes."""
    from netfit.bayes.tan import Split
    from netfit.data import load, read_csv

    if name.endswith(".csv") or Path(name).is_file():
        if label is None:
            raise ConfigError(f"{name} needs --label, the column that holds the classes")
        found = read_csv(name, label)
        train, test = found.data.hold_out(max(len(found.data) // 4, 1), seed)
        return Split(train.x, train.y, test.x, test.y), list(found.columns), list(train.classes)
    if label is not None:
        raise ConfigError(f"--label {label!r} is for a CSV file; {name!r} knows its classes")
    train, test = load(name, "train"), load(name, "test")
    x, x_test = train.x, test.x
    if x.ndim > 2:
        x, x_test = _intervals(x, train.y, x_test)
    return Split(x, train.y, x_test, test.y), [str(i) for i in range(x.shape[1])], list(train.classes)


def _intervals(x: Any, y: Any, x_test: Any) -> tuple[Any, Any]:
    """Images at half their resolution, each pixel cut by MDL: as the published study did with MNIST."""
    from netfit.bayes import MDLDiscretizer

    def halved(images: Any) -> Any:
        n, channels, height, width = images.shape
        cut = images[:, :, : height // 2 * 2, : width // 2 * 2]
        return cut.reshape(n, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5)).reshape(n, -1)

    if x.ndim != 4:
        raise ConfigError(f"samples of shape {x.shape[1:]} are neither a table nor images; give a CSV file of features")
    small = halved(x)
    cuts = MDLDiscretizer().fit(small, y)
    return cuts.transform(small), cuts.transform(halved(x_test))


def _single(run: "Run", split: "Split", settings: dict[str, Any], seed: int, packed: bool) -> dict[str, Any]:
    from netfit.bayes import TANClassifier
    from netfit.bayes.tan import measured

    def fit() -> dict[str, Any]:
        model = TANClassifier(**settings, handle_unknown="uniform", random_state=seed).fit(split.x, split.y)
        return _kept(run, "tan", asdict(measured(model, split, settings["structure"])), model, packed)

    return dict(run.stage("tan", fit))


def _front(
    run: "Run", split: "Split", settings: dict[str, Any], epochs: int, seed: int, packed: bool
) -> list[dict[str, Any]]:
    from netfit.bayes.tan import bayesian_points, mlp_points

    def bayesian(stage: str, penalty: float, width: int) -> dict[str, Any]:
        pair = (_INTEGER_BITS, width - _INTEGER_BITS)
        found = bayesian_points(split, penalties=[penalty], bits=[pair], epochs=epochs, seed=seed, **settings)
        point, model = next(found)
        return _kept(run, stage, asdict(point), model, packed)

    def network(hidden: int, precision: str) -> dict[str, Any]:
        found = mlp_points(split, hidden=[hidden], precisions=[precision], epochs=_MLP_EPOCHS, seed=seed)
        return asdict(next(found))

    def points() -> Iterator[dict[str, Any]]:
        for i, penalty in enumerate(_PENALTIES):
            for width in _WIDTHS:
                stage = f"tan-{i}-{width}bit"
                yield run.stage(stage, partial(bayesian, stage, penalty, width))
        for hidden in _HIDDEN:
            for precision in _PRECISIONS:
                yield run.stage(f"mlp-{hidden}-{precision}", partial(network, hidden, precision))

    found = []
    total = len(_PENALTIES) * len(_WIDTHS) + len(_HIDDEN) * len(_PRECISIONS)
    for point in points():
        found.append(point)
        line = f"{len(found)}/{total} {point['family']} {point['name']}: {100 * point['error']:.2f} % wrong"
        print(f"{line}, {point['bytes']} B", file=sys.stderr, flush=True)
    return found


def _kept(run: "Run", stem: str, point: dict[str, Any], model: "TANClassifier", packed: bool) -> dict[str, Any]:
    """The point with its C file written beside the result, and what depends on what."""
    model.export_c(run.path / f"{stem}.c", packed=packed)
    sizes = [len(c) for c in model.categories_]
    return point | {"file": f"{stem}.c", "parents": model.parents_.tolist(), "values": sizes}


def _outcome(folder: Path, as_json: bool, facts: dict[str, Any]) -> Output:
    write_page(folder)
    rows = [
        (p["family"], p["name"], f"{100 * p['error']:.2f}", str(p["bytes"]), si(p["operations"]), p.get("file", ""))
        for p in sorted(facts["points"], key=lambda p: p["bytes"])
    ]
    columns = ("family", "classifier", "error %", "bytes", "operations", "C file")
    text = f"{table(columns, rows)}\nrun directory: {folder}\nreport: {folder / 'report.html'}"
    return answer(as_json, facts | {"run": str(folder)}, text)
