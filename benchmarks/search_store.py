"""Storing 10,000 sweep points: netfit's blocks, the same as rows of one table, and the same as Optuna trials.

Optuna runs fewer trials, with its SQLite defaults; its time grows at least linearly, so the extrapolation favours it.
"""

import itertools
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna

from netfit.search import Sweep

from ._common import interleave, median_ratio, record

POINTS = 10_000
TRIALS = 20
REPEATS = 5
INPUTS, RESULTS = ("rows", "cols", "depth", "clock"), ("time_s", "energy_j")
GRID = {name: np.arange(1.0, 11.0) for name in INPUTS}


def model(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A cost that takes no time beside the storing of it."""
    return {"time_s": 1 / (block["rows"] * block["clock"]), "energy_j": block["cols"] * block["depth"]}


def blocks(folder: Path) -> None:
    """One transaction for all points, one blob a column."""
    with closing(Sweep(folder / "sweep.db", INPUTS + RESULTS)) as sweep:
        assert sweep.run(GRID, model) == POINTS


def rows(folder: Path) -> None:
    """One transaction for all points, one row a point."""
    columns = dict(zip(INPUTS, (g.ravel() for g in np.meshgrid(*GRID.values(), indexing="ij")), strict=True))
    columns |= model(columns)
    with closing(sqlite3.connect(folder / "rows.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"CREATE TABLE points ({', '.join(f'{name} REAL' for name in columns)})")
        values = zip(*(c.tolist() for c in columns.values()), strict=True)
        connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)", values)


def trials(study: optuna.Study) -> None:
    """One trial a point, for the first points only."""
    for _ in range(TRIALS):
        trial = study.ask()
        point = {name: np.array([trial.suggest_float(name, 1.0, 10.0)]) for name in INPUTS}
        result = model(point)
        trial.set_user_attr("energy_j", float(result["energy_j"][0]))
        study.tell(trial, float(result["time_s"][0]))


def main() -> None:
    """Measure in turns, each turn in a new file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    turn = itertools.count()
    with tempfile.TemporaryDirectory() as top:
        study = optuna.create_study(storage=f"sqlite:///{top}/trials.db", sampler=optuna.samplers.RandomSampler(seed=0))

        def fresh(store: Callable[[Path], None]) -> Callable[[], None]:
            def run() -> None:
                folder = Path(top) / str(next(turn))
                folder.mkdir()
                store(folder)

            return run

        seconds = interleave({"blocks": fresh(blocks), "rows": fresh(rows), "trials": lambda: trials(study)}, REPEATS)
    seconds["trials"] = [s * POINTS / TRIALS for s in seconds["trials"]]
    table = []
    for name, note in (("blocks", "netfit.search.Sweep"), ("rows", "sqlite3 rows"), ("trials", "Optuna, extrapolated")):
        once = sorted(seconds[name])[REPEATS // 2]
        saved = median_ratio(seconds["trials"], seconds[name])
        row = {"store": note, "seconds": once, "trials cost x": saved.median, "from": saved.low, "to": saved.high}
        goal = "<= 1 s, >= 500 x" if name == "blocks" else ""
        held = "" if not goal else "yes" if once <= 1 and saved.median >= 500 else "NO"
        table.append(row | {"goal": goal, "held": held})
    record("search_store", table, points=POINTS, trials_run=TRIALS, repeats=REPEATS)


if __name__ == "__main__":
    main()
