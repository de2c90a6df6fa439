from pathlib import Path
from typing import Any

import optuna
import pytest
from search_toys import GOAL, SPACE, Logged, breaks_on_narrow, dies_on_narrow, evaluate, fails_on_narrow

from netfit.errors import ConfigError
from netfit.search import Study


def memory(sampler: str = "random") -> Study:
    return Study(optuna.storages.InMemoryStorage(), space=SPACE, goal=GOAL, sampler=sampler, seed=11)


def points(study: Study) -> list[tuple[Any, ...]]:
    return [(r.number, r.state, tuple(r.params.items()), r.seed, r.value) for r in study.trials()]


def test_one_or_four_workers_find_the_same(tmp_path: Path) -> None:
    one, four = memory(), memory()
    assert one.run(fails_on_narrow, 20) == four.run(fails_on_narrow, 20, n_jobs=4) == 20
    assert points(one) == points(four)
    assert one.best == four.best
    assert four.run(fails_on_narrow, 20, n_jobs=4) == 0


def test_tpe_with_workers_spends_the_budget_exactly(tmp_path: Path) -> None:
    study = memory("tpe")
    assert study.run(Logged(tmp_path / "log", pause_s=0.01), 25, n_jobs=2) == 25
    assert len(study.trials()) == len((tmp_path / "log").read_text().splitlines()) == 25


def test_a_killed_worker_costs_only_its_own_trial() -> None:
    whole, study = memory(), memory()
    whole.run(evaluate, 6)
    narrow = [r for r in whole.trials() if r.params["width"] == 8]
    assert narrow, "the seed must give a trial that dies"
    study.run(dies_on_narrow, 6, n_jobs=2)
    done = {(r.seed, r.value) for r in study.trials() if r.state == "complete"}
    assert done == {(r.seed, r.value) for r in whole.trials() if r not in narrow}
    dead = [r for r in study.trials() if r.state == "fail"]
    assert len(dead) == 3 * len(narrow)  # tried, and retried twice
    assert {r.error for r in dead} == {"its worker process died"}


def test_an_exception_in_a_worker_is_raised_here() -> None:
    study = memory()
    with pytest.raises(ZeroDivisionError):
        study.run(breaks_on_narrow, 30, n_jobs=2)
    assert any(r.error == "ZeroDivisionError: division by zero" for r in study.trials())
    assert not any(r.state == "running" for r in study.trials())


def test_refuses_what_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="define it at module level"):
        memory().run(lambda t: evaluate(t), 2, n_jobs=2)
