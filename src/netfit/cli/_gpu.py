"""``netfit gpu``: measured kernels in, predictors out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, Json, Seed
from ._output import Output, answer, si, table, write_page

if TYPE_CHECKING:
    from netfit.targets.gpu import KernelDB, KernelPredictor, Samples

__all__ = ["adapt", "evaluate", "import_", "predict", "train"]

Format = Literal["torch-profiler", "cuda-flux", "kernel-tuner", "aiconfigurator", "csv"]
Database = Annotated[Path, Parameter(help="Kernel database, as netfit gpu import makes it.")]
Predictor = Annotated[Path, Parameter(help="Folder of a trained predictor.")]
Quantity = Annotated[Literal["time", "power", "energy"], Parameter(help="What is predicted.")]
Features = Annotated[Literal["op", "ptx", "settings"], Parameter(help="What it is predicted from.")]
Base = Annotated[Literal["roofline", "instructions", "none"], Parameter(help="What is divided out first.")]
Label = Literal["shape", "kernel", "app", "device"]
Rows = Annotated[
    int | None, Parameter(name="--samples", help="Use at most so many kernels, drawn at random; all by default.")
]
Only = Annotated[str | None, Parameter(help="Use the rows of these devices only, by commas.")]
_UNITS = {"time": "s", "power": "W", "energy": "J"}


def import_(
    sources: Annotated[Sequence[str], Parameter(consume_multiple=True, help="Files; system names of aiconfigurator.")],
    /,
    *,
    into: Database = Path("kernels.db"),
    format: Annotated[Format, Parameter(help="What the sources are.")] = "torch-profiler",
    device: Annotated[str | None, Parameter(help="Where it was measured; traces and caches know it.")] = None,
    app: Annotated[str | None, Parameter(help="Name of the application.")] = None,
    map: Annotated[str, Parameter(help="csv: columns, such as m=M,n=N,k=K,time_ms=latency.")] = "",
    set: Annotated[
        str, Parameter(help="csv: columns that are the same in every row, such as kind=gemm,dtype=bf16.")
    ] = "",
    times: Annotated[Path | None, Parameter(help="cuda-flux: SQLite file with a table kerneltime.")] = None,
    powers: Annotated[Path | None, Parameter(help="cuda-flux: SQLite file with a table kernelpower.")] = None,
    kinds: Annotated[str, Parameter(help="aiconfigurator: gemm,context_attention,generation_attention,moe.")] = "gemm",
    framework: Annotated[str, Parameter(help="aiconfigurator: trtllm, vllm or sglang.")] = "trtllm",
    dtypes: Annotated[str, Parameter(help="aiconfigurator: precisions by its own names; empty for all.")] = "bfloat16",
    limit: Annotated[int | None, Parameter(help="aiconfigurator: rows of each file, drawn at random.")] = None,
    root: Annotated[Path | None, Parameter(help="aiconfigurator: folder that holds aiconfigurator_core.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Add measured kernels to a database."""
    from netfit.targets.gpu import KernelDB

    db, added = KernelDB(into), 0
    if format == "aiconfigurator":
        added = db.from_aiconfigurator(
            sources, kinds=_list(kinds), framework=framework, dtypes=_list(dtypes), root=root, limit=limit, seed=seed
        )
    else:
        fixed = {name: value for name, value in (("device", device), ("app", app)) if value}
        csv = _pairs("--map", map), _pairs("--set", set) | fixed
        for source in sources:
            added += _added(db, source, format, fixed, csv, (times, powers))
    rows = db.summary()
    db.close()
    columns = ("source", "device", "launches", "kernels", "apps", "with_power")
    text = table(columns, [tuple(str(row[c]) for c in columns) for row in rows])
    return answer(
        as_json, {"database": into, "added": added, "content": rows}, f"{text}\n{added} launches added to {into}"
    )


def _added(
    db: "KernelDB",
    source: str,
    format: Format,
    fixed: Mapping[str, str],
    csv: tuple[Mapping[str, str], Mapping[str, str]],
    measured: tuple[Path | None, Path | None],
) -> int:
    """Rows of one file."""
    if format == "torch-profiler":
        return db.from_torch_profiler(source, **fixed)
    if format == "kernel-tuner":
        return db.from_kernel_tuner(source)
    if format == "csv":
        return db.from_csv(source, csv[0], **csv[1])
    if "device" not in fixed:
        raise ConfigError("cuda-flux counts instructions: --device says where the times were measured")
    return db.from_cuda_flux(source, times=measured[0], powers=measured[1], **fixed)


def train(
    database: Database,
    out: Predictor,
    /,
    *,
    quantity: Quantity = "time",
    features: Features = "op",
    base: Base = "roofline",
    trees: Count = 256,
    groups: Annotated[Label, Parameter(help="What intervals take to be unknown.")] = "shape",
    only: Only = None,
    rows: Rows = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Train a predictor and save it."""
    data = _samples(database, quantity, features, only, rows, seed)
    model = _model(quantity, features, base, trees, seed)
    pairs = sorted({f"{k}:{d}" for k, d in zip(data.labels["kind"], data.labels["dtype"], strict=True)})
    model.fit(data.X, data.y(quantity), data.labels[groups], kinds=pairs, columns=data.columns)
    model.save(out)
    facts = {"predictor": out, "quantity": quantity, "rows": len(data), "kinds": pairs}
    text = f"{out}: {quantity} of {', '.join(pairs)}, trained on {len(data)} kernels"
    return answer(as_json, facts, f"{text}\nnetfit gpu evaluate {database} says how far to trust it")


def evaluate(
    database: Database,
    /,
    *,
    protocol: Annotated[
        str, Parameter(help="By commas: leave-kernel-out, leave-app-out, leave-device-out, leave-shape-out, "
                            "leave-sample-out, mangrove; by default all that the data can answer.")
    ] = "",
    quantity: Quantity = "time",
    features: Features = "op",
    base: Base = "roofline",
    trees: Count = 100,
    only: Only = None,
    rows: Rows = None,
    run: Annotated[Path | None, Parameter(help="Run directory; without one nothing is written.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:  # fmt: skip
    """Train and test under protocols that leave something out."""
    from netfit.targets.gpu import evaluate as score

    data = _samples(database, quantity, features, only, rows, seed)
    model = _model(quantity, features, base, trees, seed)
    found = score(model, data, _list(protocol) or None, seed)
    facts = {"kind": "gpu", "database": database, "rows": len(data), "settings": model.get_params()} | found.to_json()
    if run is not None:
        _keep(run, facts, seed)
    columns = ("protocol", "left out", "rows", "MAPE", "median", "within 10 %", "in 90 % interval")
    cells = [
        (s.protocol, s.left_out, str(s.rows), f"{s.mape:.1f} %", f"{s.median_ape:.1f} %", f"{100 * s.within_10:.0f} %",
         "" if s.coverage is None else f"{100 * s.coverage:.0f} %")
        for s in found.scores
    ]  # fmt: skip
    text = "\n".join([table(columns, cells), *(f"warning: {warning}" for warning in found.warnings)])
    return answer(as_json, facts, text)


def predict(
    predictor: Predictor,
    /,
    *,
    device: Annotated[str, Parameter(help="GPU, such as h100 or a100_pcie.")],
    m: Count = 1,
    n: Count = 1,
    k: Count = 1,
    count: Annotated[Count, Parameter(help="Products of this size.")] = 1,
    dtype: Annotated[str, Parameter(help="Precision of the matrix product.")] = "bf16",
    ptx: Annotated[Path | None, Parameter(help="PTX text of a kernel, for predictors by instructions.")] = None,
    grid: Annotated[str, Parameter(help="Thread blocks, such as 128,1,1.")] = "1",
    block: Annotated[str, Parameter(help="Threads of a block.")] = "1",
    trips: Annotated[str, Parameter(help="Iterations of each loop by its label, such as $L__BB0_2=64.")] = "",
    interval: Annotated[float, Parameter(help="Share of kernels inside the interval.")] = 0.9,
    as_json: Json = False,
) -> Output:
    """Predict one matrix product, or one kernel from its PTX."""
    from netfit.targets.gpu import KernelDB, KernelPredictor, Launch, ptx_counts
    from netfit.targets.gpu import device as sheet

    model, name = KernelPredictor.load(predictor), sheet(device).name
    if model.features == "settings":
        raise ConfigError(f"{predictor} predicts from tuning parameters; call it from Python with their values")
    if (model.features == "ptx") != (ptx is not None):
        need = "--ptx with --grid and --block" if model.features == "ptx" else "--m, --n and --k"
        raise ConfigError(f"{predictor} predicts by features={model.features!r}: give {need}")
    if ptx is None:
        launch = Launch(name, "", "gemm", kind="gemm", dtype=dtype, m=m, n=n, k=k, count=count).product()
    else:
        sizes, blocks = _sizes("--grid", grid), _sizes("--block", block)
        counts = ptx_counts(_text(ptx), sizes, blocks, {k: float(v) for k, v in _pairs("--trips", trips).items()})
        launch = Launch(name, "", ptx.stem, grid=sizes, block=blocks, counts=counts)
    db = KernelDB()
    db.add([launch])
    data = db.samples(model.features)
    value, lo, hi = (float(x[0]) for x in model.predict(data.X, interval))
    why, unit = model.explain(data.X)[0], _UNITS[model.quantity]
    facts = {"quantity": model.quantity, "device": name, "value": value, "lo": lo, "hi": hi, "interval": interval}
    text = f"{model.quantity}: {si(value, unit)}, {100 * interval:g} % between {si(lo, unit)} and {si(hi, unit)}"
    known = f"{launch.kind}:{launch.dtype}" in model.kinds or ptx is not None
    extra = "" if known else f"\nwarning: trained on {', '.join(model.kinds)}, not on {launch.kind}:{launch.dtype}"
    return answer(as_json, facts | {"explain": why, "known": known}, f"{text}\n{why['factor']:.2f} x its base{extra}")


def adapt(
    predictor: Predictor,
    database: Database,
    out: Predictor,
    /,
    *,
    only: Annotated[str, Parameter(help="Device whose measured kernels are the probes.")],
    probes: Annotated[Count, Parameter(help="How many of them, drawn at random.")] = 30,
    seed: Seed = 0,
    as_json: Json = False,
) -> Output:
    """Correct a predictor for a device with a few measured kernels, where cross-validation says that it helps."""
    from netfit.targets.gpu import KernelPredictor

    model = KernelPredictor.load(predictor)
    data = _samples(database, model.quantity, model.features, only, probes, seed)
    adapted = model.adapt(data.X, data.y(model.quantity))
    adapted.save(out)
    found = adapted.correction
    errors = ", ".join(f"{kind} {100 * error:.1f} %" for kind, error in found.errors)
    text = f"{out}: {found.kind} from {found.probes} probes; left-one-out errors: {errors}"
    return answer(as_json, {"predictor": out, "correction": asdict(found)}, text)


def _samples(database: Path, quantity: str, features: str, only: str | None, rows: int | None, seed: int) -> "Samples":
    import numpy as np

    from netfit.targets.gpu import KernelDB

    if not database.is_file():
        raise ConfigError(f"there is no kernel database {database}; netfit gpu import makes one")
    db = KernelDB(database)
    data = db.samples(features, **({"device": _list(only)} if only else {})).measured(quantity)
    db.close()
    if rows is None or rows >= len(data):
        return data
    return data.take(np.sort(np.random.default_rng(seed).choice(len(data), rows, replace=False)))


def _model(quantity: str, features: str, base: str, trees: int, seed: int) -> "KernelPredictor":
    from netfit.targets.gpu import KernelPredictor

    return KernelPredictor(quantity, features, base, n_estimators=trees, random_state=seed)


def _keep(run: Path, facts: Mapping[str, Any], seed: int) -> None:
    from netfit.runs import Run

    arguments = {"database": str(facts["database"]), "settings": facts["settings"]}
    with Run.open(run, "gpu", arguments, seed) as opened:
        opened.write_result(dict(facts))
    write_page(opened.path)


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(option: str, text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _list(text)]
    for name, equals, value in pairs:
        if not (name.strip() and equals and value.strip()):
            raise ConfigError(f"{option} {text!r}: {name!r} lacks a value; allowed are NAME=VALUE, by commas")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _sizes(option: str, text: str) -> tuple[int, ...]:
    words = _list(text.replace("x", ","))
    if not 1 <= len(words) <= 3 or not all(word.isdecimal() and 0 < int(word) < 2**31 for word in words):
        raise ConfigError(f"{option} {text!r}: allowed are one to three sizes from 1, such as 128,1,1")
    return tuple(int(word) for word in words)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"cannot read {path}: {e}") from e
