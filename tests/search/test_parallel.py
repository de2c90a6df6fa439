import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from search_toys import GOAL, SPACE, Logged, Pids, breaks_on_narrow, dies_on_narrow, evaluate, fails_on_narrow

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


def _interrupted(store: Path, log: Path) -> None:
    study = Study(store, space=SPACE, goal=GOAL, sampler="random", seed=11)
    try:
        study.run(Pids(log, interrupt=True), 10, n_jobs=2)
    except KeyboardInterrupt:
        os._exit(7)


def test_an_interrupt_stops_the_workers_and_repeats_their_trials(tmp_path: Path) -> None:
    """The driver is a process of its own: an interrupt that came late must not end the test run."""
    store, log = tmp_path / "s.db", tmp_path / "log"
    driver = multiprocessing.get_context("fork").Process(target=_interrupted, args=(store, log))
    driver.start()
    driver.join()
    assert driver.exitcode == 7
    assert not any(psutil.pid_exists(int(pid)) for pid in log.read_text().split())
    study = Study(store, space=SPACE, goal=GOAL, sampler="random", seed=11)
    assert not any(r.state == "running" for r in study.trials())
    whole = memory()
    whole.run(evaluate, 10)
    assert study.run(evaluate, 10) >= 6
    assert {r.seed for r in study.trials() if r.state == "complete"} == {r.seed for r in whole.trials()}


def _drive(store: Path, log: Path, n_jobs: int) -> None:
    study = Study(store, space=SPACE, goal=GOAL, sampler="random", seed=11)
    study.run(Pids(log, interrupt=False), 20, n_jobs=n_jobs)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    log = tmp_path / "log"
    driver = multiprocessing.get_context("fork").Process(target=_drive, args=(tmp_path / "s.log", log, 2))
    driver.start()
    while not log.exists():
        time.sleep(0.01)
    driver.kill()
    driver.join()
    workers = [int(pid) for pid in log.read_text().split()]
    assert workers
    while any(map(_lives, workers)):
        time.sleep(0.01)  # ends with the test's own time limit when they do not


@pytest.mark.parametrize("name", ["s.db", "s.log"])
def test_several_drivers_share_a_study(tmp_path: Path, name: str) -> None:
    context = multiprocessing.get_context("fork")
    drivers = [context.Process(target=_drive, args=(tmp_path / name, tmp_path / "log", 1)) for _ in range(3)]
    for d in drivers:
        d.start()
    for d in drivers:
        d.join()
    assert [d.exitcode for d in drivers] == [0, 0, 0]
    rows = Study(tmp_path / name, space=SPACE, goal=GOAL, sampler="random", seed=11).trials()
    assert {r.state for r in rows} == {"complete"}
    assert 20 <= len(rows) <= 22  # each driver may have begun one when the last was due
    assert len({r.seed for r in rows}) == len(rows)
    whole = memory()
    whole.run(evaluate, 20)
    assert {r.seed for r in whole.trials()} <= {r.seed for r in rows}
