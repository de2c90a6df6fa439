import multiprocessing
from pathlib import Path

import pytest
from search_toys import GOAL, SPACE, Trial, evaluate

from netfit.errors import ArtifactError, ConfigError
from netfit.search import Evaluation, Memo, Study


def _fill(memo: Memo, worker: int) -> None:
    for i in range(50):
        memo.put(["shared", i], i)
        memo.put([worker, i], {"worker": worker})


def test_keeps_values_over_processes(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.db")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(memo, w)) for w in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(memo) == 50 + 3 * 50
    assert memo.get(["shared", 7]) == 7
    assert Memo(memo.path).get([2, 49]) == {"worker": 2}


def test_computes_once_and_keeps_none(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.db")
    calls: list[None] = []
    for _ in range(3):
        assert memo.call("key", lambda: calls.append(None)) is None
    assert len(calls) == 1


def test_a_new_study_pays_nothing_for_known_points(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.db")
    paid: list[int] = []

    def once(trial: Trial) -> Evaluation:
        def compute() -> list[object]:
            paid.append(trial.number)
            e = evaluate(trial)
            return [e.value, dict(e.constraints)]

        return Evaluation(*memo.call([trial.params, trial.seed], compute))

    for name in ("a.log", "b.log"):
        study = Study(tmp_path / name, space=SPACE, goal=GOAL, seed=3)
        assert study.run(once, 15) == 15
    assert len(paid) == 15


def test_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="JSON"):
        Memo(tmp_path / "memo.db").put("key", object())


def test_names_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "memo.db").write_bytes(b"this is no database, and it is long enough to be read as a header" * 20)
    with pytest.raises(ArtifactError, match=r"memo\.db"):
        Memo(tmp_path / "memo.db")
