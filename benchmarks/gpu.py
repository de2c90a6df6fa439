"""GPU time and power of unseen shapes, devices and configurations, on the tables of ``aiconfigurator-core``.

Rows are drawn with fixed seeds and their number is in the table: forests take minutes of one core on all of them.
Times are CPU seconds of one process. ``$NETFIT_GPU_DATA`` is the folder that holds ``aiconfigurator_core``, unless the
package is installed (``pip install --no-deps aiconfigurator-core``).
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from benchmarks._common import interleave, median_ratio, record
from netfit.targets.gpu import KernelDB, KernelPredictor, Samples

SYSTEMS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "l40s", "rtx_pro_6000_server")
ROWS, POWER_ROWS, TREES, POWER_TREES = 5000, 16_000, 128, 400
PROBES, DRAWS, SEED = 30, 20, 0
UNSEEN = {"h100_sxm": 8.0, "h200_sxm": 8.0, "b200_sxm": 8.0, "a100_sxm": 22.0, "l40s": None}
ADAPTED = {"a100_sxm": 12.0, "l40s": 18.0}
MOST_WORSE = 0.5
FEW = 7000  # rows of the forest whose speed is measured
POWER = {"context_attention": 11.0, "moe": 14.0, "generation_attention": 17.0}
Array = NDArray[np.float64]


def mape(found: Array, truth: Array) -> float:
    """Mean absolute percentage error."""
    return 100 * float(np.mean(np.abs(found - truth) / truth))


def row(check: str, value: float, goal: float | None, rows: int, most: bool = True) -> dict[str, Any]:
    """One line of the table; without a goal the figure is for information."""
    met = "" if goal is None else (value <= goal if most else value >= goal)
    return {"check": check, "value": value, "goal": "" if goal is None else goal, "met": met, "rows": rows}


def products() -> Samples:
    """Matrix products in bf16 on seven GPUs."""
    db = KernelDB()
    db.from_aiconfigurator(SYSTEMS, limit=ROWS, seed=SEED)
    return db.samples("op")


def unseen_shapes(data: Samples) -> list[dict[str, Any]]:
    """A fifth of the shapes is held out, on every GPU."""
    train, test = next(iter(GroupKFold(5, shuffle=True, random_state=SEED).split(data.X, groups=data.labels["shape"])))
    model = KernelPredictor(n_estimators=TREES, random_state=SEED)
    model.fit(data.X[train], data.time_s[train], data.labels["shape"][train])
    value, lo, hi = model.predict(data.X[test], interval=0.9)
    truth = data.time_s[test]
    inside = 100 * float(np.mean((lo <= truth) & (truth <= hi)))
    bound = data.X[test][:, data.columns.index("log_bound")]
    return [
        row("gemm: roofline alone, MAPE %", mape(np.exp(bound), truth), None, len(test)),
        row("gemm: unseen shapes, MAPE %", mape(value, truth), 7.0, len(test)),
        row("gemm: unseen shapes, share inside 90 % intervals, at least", inside, 87.0, len(test), most=False),
        row("gemm: unseen shapes, share inside 90 % intervals, at most", inside, 93.0, len(test)),
    ]


def unseen_devices(data: Samples) -> list[dict[str, Any]]:
    """Each GPU is left out whole; then 30 of its kernels are probes and the others the test."""
    rows, after = [], []
    for system, goal in UNSEEN.items():
        here = data.labels["device"] == system
        rest, mine = data.take(~here), data.take(here)
        model = KernelPredictor(n_estimators=TREES, random_state=SEED).fit(rest.X, rest.time_s, intervals=False)
        zero = model.predict(mine.X)
        rows.append(row(f"gemm: unseen {system}, MAPE %", mape(zero, mine.time_s), goal, len(mine)))
        errors, worse = [], []
        for draw in range(DRAWS):
            probes = np.random.default_rng(draw).choice(len(mine), PROBES, replace=False)
            held = np.setdiff1d(np.arange(len(mine)), probes)
            adapted = model.adapt(mine.X[probes], mine.time_s[probes]).predict(mine.X[held])
            errors.append(mape(adapted, mine.time_s[held]))
            worse.append(errors[-1] - mape(zero[held], mine.time_s[held]))
        label = f"gemm: {system} after {PROBES} probes, mean of {DRAWS} draws, MAPE %"
        after.append(row(label, statistics.fmean(errors), ADAPTED.get(system), len(mine) - PROBES))
        label = f"gemm: {system} after {PROBES} probes, points worse than before, mean of {DRAWS} draws"
        after.append(row(label, statistics.fmean(worse), MOST_WORSE, len(mine) - PROBES))
        after.append(row(f"gemm: {system} the same, worst draw", max(worse), MOST_WORSE, len(mine) - PROBES))
    return rows + after


def power() -> list[dict[str, Any]]:
    """B200 with measured watts; whole model configurations are held out."""
    rows = []
    for kind, goal in POWER.items():
        db = KernelDB()
        db.from_aiconfigurator(["b200_sxm"], kinds=[kind], framework="vllm", dtypes=(), limit=POWER_ROWS, seed=SEED)
        data = db.samples("op").measured("power")
        found = {name: np.empty(len(data)) for name in ("time", "power")}
        for train, test in GroupKFold(5).split(data.X, groups=data.labels["app"]):
            for (name, values), (trees, leaf) in zip(found.items(), ((TREES, 2), (POWER_TREES, 20)), strict=True):
                model = KernelPredictor(name, n_estimators=trees, min_samples_leaf=leaf, random_state=SEED)
                model.fit(data.X[train], data.y(name)[train], intervals=False)
                values[test] = model.predict(data.X[test])
        errors = np.abs(found["power"] / data.power_w - 1)
        n = len(data)
        rows += [
            row(f"B200 {kind}: power, configurations out, MAPE %", 100 * float(errors.mean()), goal, n),
            row(f"B200 {kind}: power, median %", 100 * float(np.median(errors)), None, n),
            row(f"B200 {kind}: time, MAPE %", mape(found["time"], data.time_s), None, n),
            row(
                f"B200 {kind}: energy = time x power, MAPE %",
                mape(found["time"] * found["power"], data.y("energy")),
                None,
                n,
            ),
        ]
    return rows


def latency(data: Samples) -> list[dict[str, Any]]:
    """One row and ten thousand, by the saved file and by the forest it was made from."""
    few = data.take(np.random.default_rng(SEED).choice(len(data), FEW, replace=False))
    model = KernelPredictor(n_estimators=256, random_state=SEED).fit(few.X, few.time_s, intervals=False)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "predictor")
        size = (Path(folder) / "predictor" / "model.onnx").stat().st_size
        loaded = KernelPredictor.load(Path(folder) / "predictor")
    one, many = few.X[:1], np.resize(few.X, (10_000, few.X.shape[1]))
    turns = {"onnx": lambda: [loaded.predict(one) for _ in range(100)], "sklearn": lambda: model.predict(one)}
    seconds = interleave(turns, 15, warmup=2, clock=time.process_time)
    single = [s / 100 for s in seconds["onnx"]]
    batch = interleave({"onnx": lambda: loaded.predict(many)}, 5, clock=time.process_time)["onnx"]
    gap = float(np.max(np.abs(loaded.predict(few.X) / model.predict(few.X) - 1)))
    return [
        row("256 trees: one prediction, median CPU ms", 1e3 * statistics.median(single), 0.1, len(few)),
        row(
            "256 trees: scikit-learn over ONNX Runtime",
            median_ratio(seconds["sklearn"], single).median,
            200.0,
            len(few),
            most=False,
        ),
        row("256 trees: 10 000 predictions, median CPU s", statistics.median(batch), 0.2, len(few)),
        row("256 trees: largest relative difference of the saved file", gap, None, len(few)),
        row("256 trees: bytes of the saved file", float(size), None, len(few)),
    ]


def main() -> None:
    """Print and keep one row per figure; figures that are missed stay in the table."""
    data = products()
    rows = [*unseen_shapes(data), *unseen_devices(data), *latency(data), *power()]
    record("gpu", rows, seed=SEED, rows_per_gpu=ROWS, trees=TREES, power_rows=POWER_ROWS, power_trees=POWER_TREES)


if __name__ == "__main__":
    main()
