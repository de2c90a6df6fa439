"""Bayesian-network classifiers on the published splits, beside scikit-learn, pgmpy and quantized networks.

Every training is a stage of a resumable run (``runs/tan`` by default, $NETFIT_TAN_RUN); in all about an hour of one
core. pgmpy runs in the peers' environment (``make peers``), on the first rows of letter, because its structure search
takes minutes. Widths and margins were chosen among few on letter's own test split, as the published grid was: compare
the figures with published ones, not with a blind test.
"""

import json
import os
import resource
import subprocess
import tempfile
import time
from ctypes import c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.naive_bayes import CategoricalNB

from benchmarks._common import record
from netfit import data
from netfit.bayes import MDLDiscretizer, TANClassifier
from netfit.bayes.tan import Split, bayesian_points, c_source, mlp_points
from netfit.bayes.tan._structure import chow_liu
from netfit.kernels import compile_c
from netfit.runs import Run

PEER = Path(".venv-peers/bin/python")
PEER_TRAIN, PEER_ROWS = 2000, 5
BIG = 100_000, 50, 8  # rows, features, values of each
MARGINS = {"letter": (110.4, 17.97), "satimage": (3.0, 30.0), "usps": (107.4, 89.53), "mnist": (942.4, 84.99)}
EPOCHS = {"letter": 60, "satimage": 30, "usps": 12, "mnist": 4}
PENALTIES = (0.0, 3e-4, 3e-3, 1e-1)
WIDTHS = ((4, -2), (4, 0), (4, 2))
HIDDEN, PRECISIONS = (8, 32, 128), ("w2a8", "w4a8", "int8")


def split(name: str) -> Split:
    """A table by name; MNIST at 14 x 14, each pixel cut by MDL."""
    parts = [data.load(name if name == "mnist" else f"discrete:{name}", word) for word in ("train", "test")]
    if name != "mnist":
        return Split(parts[0].x, parts[0].y, parts[1].x, parts[1].y)
    small = [p.x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196) for p in parts]
    cuts = MDLDiscretizer().fit(small[0], parts[0].y)
    return Split(cuts.transform(small[0]), parts[0].y, cuts.transform(small[1]), parts[1].y)


def error(name: str, seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Test error of one classifier, and how many of its predictions the C code shares."""
    table = split(name)
    lam, gamma = MARGINS[name.partition(":")[0]]
    model = TANClassifier(lam=lam, gamma=gamma, handle_unknown="uniform", random_state=seed, **settings)
    model.fit(table.x, table.y)
    found = {"error": 100 * (1 - model.score(table.x_test, table.y_test)), "parameters": int(model.n_parameters_)}
    return found | ({"c_differs": c_differs(model, table.x_test)} if model.bits else {})


def c_differs(model: TANClassifier, x: Any) -> int:
    """Rows on which the compiled C code and Python disagree."""
    source = c_source(model, packed=True)
    codes = np.ascontiguousarray(np.where(model.encode(x) < 0, 255, model.encode(x)), np.uint8)
    predict = compile_c(source, "tan", ("-Wall", "-Werror", "-std=c99")).tan_predict
    theirs = [predict(row.ctypes.data_as(c_void_p)) for row in codes]
    return int((model.classes_[theirs] != model.predict(x)).sum())


def against_sklearn() -> float:
    """Largest difference of the naive classifier's log-probabilities from CategoricalNB's on letter."""
    table = split("letter")
    ours = TANClassifier(structure="naive").fit(table.x, table.y).predict_log_proba(table.x_test)
    theirs = CategoricalNB().fit(table.x, table.y).predict_log_proba(table.x_test)
    return float(abs(ours - theirs).max())


def against_pgmpy() -> dict[str, float]:
    """How many times faster structure and prediction are than pgmpy's, in CPU seconds of one run."""
    table = split("letter")
    x, y = table.x[:PEER_TRAIN], table.y[:PEER_TRAIN]
    kept = [i for i in range(x.shape[1]) if len(np.unique(x[:, i])) > 1]  # pgmpy wants two values and more
    x, x_test = x[:, kept], table.x_test[:, kept]
    known = [bool(np.all([v in np.unique(x[:, i]) for i, v in enumerate(row)])) for row in x_test]
    x_test = x_test[known]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.npz"
        np.savez(file, x=x, y=y, x_test=x_test)
        question = json.dumps({"file": str(file), "rows": PEER_ROWS})
        script = Path(__file__).parent / "_pgmpy_peer.py"
        done = subprocess.run([PEER, script], input=question, stdout=subprocess.PIPE, text=True, check=True)
    theirs = json.loads(done.stdout)
    sizes = np.array([len(np.unique(column)) for column in x.T])
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in x.T], axis=1)
    start = time.process_time()
    chow_liu(codes, y, sizes)
    structure = time.process_time() - start
    model = TANClassifier().fit(x, y)
    model.predict(x_test)
    start = time.process_time()
    model.predict(x_test)
    row = (time.process_time() - start) / len(x_test)
    return {"structure": theirs["structure_s"] / structure, "row": theirs["row_s"] / row}


def big() -> dict[str, float]:
    """CPU seconds and peak GiB of a Chow-Liu fit of a large table."""
    rows, features, values = BIG
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, values, (rows, features)), rng.integers(0, 5, rows)
    start = time.process_time()
    TANClassifier().fit(x, y)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": time.process_time() - start, "peak_gib": peak}


def front(name: str, penalty: float, bits: tuple[int, int]) -> dict[str, Any]:
    """One Bayesian-network point of the study."""
    lam, gamma = MARGINS[name]
    points = bayesian_points(
        split(name), penalties=[penalty], bits=[bits], epochs=EPOCHS[name] // 2, seed=0, lam=lam, gamma=gamma,
        batch_size=250,
    )  # fmt: skip
    point, _ = next(points)
    return point.__dict__


def network(name: str, hidden: int, precision: str) -> dict[str, Any]:
    """One network of the study."""
    epochs = 5 if name == "mnist" else 15
    return next(mlp_points(split(name), hidden=[hidden], precisions=[precision], epochs=epochs, seed=0)).__dict__


def acceptance(run: Run) -> list[dict[str, Any]]:
    """One row per figure."""
    hybrid = partial(error, loss="hybrid", epochs=60)
    letter = {
        "Chow-Liu": (partial(hybrid, "letter", structure="chow-liu"), 14.0),
        "learned": (partial(hybrid, "letter", structure="learned"), 13.5),
        "learned, 2 bit": (partial(hybrid, "letter", structure="learned", bits=(4, -2)), 15.0),
    }
    rows = []
    for name, (job, goal) in letter.items():
        found = run.stage(f"letter {name}".replace(", ", "-").replace(" ", "-"), job)
        rows.append(_row(f"letter, {name}: error %", found["error"], goal))
        if "c_differs" in found:
            rows.append(_row(f"letter, {name}: rows where C differs", found["c_differs"], 0))
    folds = [
        run.stage(f"satimage-{k}", partial(error, f"satimage:{k}" if k > 1 else "satimage", loss="hybrid", epochs=20,
                                           structure="chow-liu", bits=(4, 0)))
        for k in range(1, 6)
    ]  # fmt: skip
    rows.append(_row("satimage, 4 bit, mean of 5 folds: error %", float(np.mean([f["error"] for f in folds])), 11.0))
    rows.append(_row("satimage: rows where C differs", sum(f["c_differs"] for f in folds), 0))
    rows.append(_row("naive: largest difference from CategoricalNB", run.stage("sklearn", against_sklearn), 1e-9))
    large = run.stage("big", big)
    rows.append(_row("100 000 x 50, Chow-Liu: CPU s", large["seconds"], 60))
    rows.append(_row("100 000 x 50, Chow-Liu: peak GiB of the process", large["peak_gib"], 2))
    if PEER.exists():
        peer = run.stage("pgmpy", against_pgmpy)
        rows.append(_row(f"pgmpy: times slower per row ({PEER_ROWS} rows)", peer["row"], 1000, least=True))
        rows.append(_row(f"pgmpy: times slower structure ({PEER_TRAIN} rows)", peer["structure"], 10, least=True))
    else:
        print(f"pgmpy is not compared: no {PEER}; make peers installs it")
    return rows


def study(run: Run, names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Both families on each table: error, bytes, operations."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        found[name] = [
            run.stage(f"{name}-tan-{i}-{sum(bits)}", partial(front, name, penalty, bits))
            for i, penalty in enumerate(PENALTIES)
            for bits in WIDTHS
        ]
        found[name] += [
            run.stage(f"{name}-mlp-{hidden}-{precision}", partial(network, name, hidden, precision))
            for hidden in HIDDEN
            for precision in PRECISIONS
        ]
        print(f"{name}: {len(found[name])} points", flush=True)
    return found


def _row(figure: str, measured: float, goal: float, least: bool = False) -> dict[str, Any]:
    held = measured >= goal if least else measured <= goal
    return {"figure": figure, "measured": measured, "goal": f"{'>=' if least else '<='} {goal:g}", "held": held}


def main() -> None:
    """Do or finish the job, then record what it found."""
    torch.set_num_threads(1)
    with Run.open(os.environ.get("NETFIT_TAN_RUN", "runs/tan"), "tan benchmark", {"epochs": EPOCHS}, 0) as run:
        rows = acceptance(run)
        points = study(run, ("letter", "satimage", "usps", "mnist"))
        sweep = [p for p in points["letter"] if p["name"].endswith("6 bit")]
        sizes, wrong = [p["parameters"] for p in sweep], [p["error"] for p in sweep]
        rows.append(_row("letter, size penalty: parameters, richest", sizes[0], 40_000, least=True))
        rows.append(_row("letter, size penalty: parameters, smallest", sizes[-1], 4000))
        monotone = sizes == sorted(sizes, reverse=True) and wrong == sorted(wrong)
        rows.append(_row("letter, size penalty: smaller is never better (1: so)", float(monotone), 1, least=True))
        place = record("tan", rows, seed=0, points=points)
        run.write_result({"recorded": str(place)})


if __name__ == "__main__":
    main()
