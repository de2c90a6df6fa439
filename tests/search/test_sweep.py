from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfit.errors import ArtifactError, ConfigError
from netfit.search import Sweep

GRID = {"rows": [8, 16, 32], "cols": np.arange(1, 8), "clock": [1.0, 1.5]}
NAMES = ["rows", "cols", "clock", "time", "area"]


def model(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    area = block["rows"] * block["cols"]
    return {"time": 4096 / (area * block["clock"]), "area": area}


@settings(max_examples=10, deadline=None)
@given(chunk=st.integers(1, 50))
def test_blocks_do_not_change_the_result(tmp_path_factory: pytest.TempPathFactory, chunk: int) -> None:
    sweep = Sweep(tmp_path_factory.mktemp("sweep") / "s.db", NAMES)
    assert sweep.run(GRID, model, chunk=chunk) == 42
    columns = sweep.columns()
    rows, cols, clock = (g.ravel() for g in np.meshgrid(*GRID.values(), indexing="ij"))
    assert (columns["rows"] == rows).all() and (columns["cols"] == cols).all()
    assert (columns["time"] == 4096 / (rows * cols * clock)).all()
    sweep.close()


def test_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    calls: list[int] = []

    def cut(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(block["rows"]))
        return model(block)

    with pytest.raises(KeyboardInterrupt):
        Sweep(tmp_path / "s.db", NAMES).run(GRID, cut, chunk=10)
    seen: list[tuple[int, int | None]] = []
    again = Sweep(tmp_path / "s.db", NAMES)
    assert again.run(GRID, model, chunk=10, progress=lambda *p: seen.append(p)) == 12
    assert seen[-1] == (42, 42)
    assert len(again.columns()["time"]) == 42
    assert again.run(GRID, model, chunk=10) == 0


def test_takes_an_iterator_of_blocks(tmp_path: Path) -> None:
    blocks = ({"rows": np.full(4, r), "cols": np.arange(1, 5), "clock": np.ones(4)} for r in (2, 4, 8))
    sweep = Sweep(tmp_path / "s.db", NAMES)
    assert sweep.run(blocks, model) == 12
    assert sweep.columns()["area"][-1] == 32


def test_pareto_keeps_all_columns_of_the_front(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "s.db", NAMES)
    sweep.run(GRID, model, chunk=16)
    front = sweep.pareto({"time": False, "area": False})
    # The faster clock costs no area here: only it can be on the front.
    assert set(front["clock"]) == {1.5}
    assert set(front) == set(NAMES)
    assert (np.unique(front["area"]) == np.unique(sweep.columns()["area"])).all()


def test_empty_grid(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "s.db", ["a"])
    assert sweep.run({"a": []}, lambda b: {}) == 0
    assert sweep.columns()["a"].shape == (0,)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"time": [1.0, 2.0]}, "shape"),
        ({"time": ["fast"] * 3, "area": [1, 2, 3]}, "'time'"),
        ({"tiem": [1.0, 2.0, 3.0], "area": [1, 2, 3]}, "did you mean 'tiem'"),
    ],
)
def test_names_the_wrong_column(tmp_path: Path, result: dict[str, list[float]], words: str) -> None:
    sweep = Sweep(tmp_path / "s.db", NAMES)
    with pytest.raises(ConfigError, match=words):
        sweep.run({"rows": [1, 2, 3], "cols": [1], "clock": [1.0]}, lambda b: result)


def test_refuses_another_sweep(tmp_path: Path) -> None:
    Sweep(tmp_path / "s.db", NAMES).run(GRID, model)
    with pytest.raises(ConfigError, match="keeps the columns"):
        Sweep(tmp_path / "s.db", ["rows", "time"])
    with pytest.raises(ConfigError, match="block 0 was swept with other inputs"):
        Sweep(tmp_path / "s.db", NAMES).run({**GRID, "rows": [8, 16, 33]}, model)
    with pytest.raises(ConfigError, match="did you mean 'time'"):
        Sweep(tmp_path / "s.db", NAMES).pareto({"tme": False})


def test_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"no database" * 200)
    with pytest.raises(ArtifactError, match=r"s\.db"):
        Sweep(tmp_path / "s.db", NAMES)
