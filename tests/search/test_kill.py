"""A search is killed at random moments and resumed; nothing may be lost."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from search_toys import GOAL, SPACE, Logged, evaluate

from netfit.search import Evaluation, Study
from netfit.search._owner import alive, me
from netfit.search._recovery import MAX_RETRY

FORK = multiprocessing.get_context("fork")  # a spawned child would spend its short life importing


def search(store: Path, log: Path, n_trials: int) -> None:
    study = Study(store, space=SPACE, goal=GOAL, sampler="random", seed=7)
    study.run(Logged(log, pause_s=0.01), n_trials)


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def complete(store: Path) -> dict[int, float]:
    """Number and value of the trials that are done, read without netfit; checks that the store is readable at all."""
    if not store.exists():
        return {}
    if store.suffix == ".db":
        with closing(sqlite3.connect(store)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'trial_values'").fetchall():
                return {}
            return dict(connection.execute("SELECT number, value FROM trials JOIN trial_values USING (trial_id)"))
    assert all(json.loads(line) for line in store.read_bytes().rpartition(b"\n")[0].splitlines())
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(store)))
    if not optuna.get_all_study_names(storage):
        return {}
    study = optuna.load_study(study_name="netfit", storage=storage)
    return {t.number: t.value for t in study.trials if t.state.name == "COMPLETE"}


def one_life(store: Path, log: Path, n_trials: int, wait_for: int, delay_s: float) -> bool:
    """Run a search in a child and kill it; whether it lived until it was killed."""
    before = len(lines(log))
    child = FORK.Process(target=search, args=(store, log, n_trials))
    child.start()
    while child.is_alive() and len(lines(log)) < before + wait_for:
        time.sleep(0.002)
    time.sleep(delay_s)
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def kill_test(store: Path, kills: int, n_trials: int) -> None:
    log = store.with_name("evaluations.txt")
    rng = random.Random(store.suffix)
    optuna.storages.RDBStorage("sqlite:///:memory:")  # imported before the forks, not in each short life
    known: dict[int, float] = {}
    done = 0
    while done < kills:
        # Every other life gets to evaluate a few trials: a trial may kill its process only MAX_RETRY times. The
        # others may end anywhere, also while the store is made or recovered.
        wait_for, delay_s = (3, rng.uniform(0, 0.05)) if done % MAX_RETRY else (0, rng.uniform(0, 0.2))
        assert one_life(store, log, n_trials, wait_for, delay_s), "the search finished before the last kill"
        done += 1
        now = complete(store)
        assert known.items() <= now.items()
        known = now
    search(store, log, n_trials)

    whole = Study(optuna.storages.InMemoryStorage(), space=SPACE, goal=GOAL, sampler="random", seed=7)
    whole.run(evaluate, n_trials)
    resumed = Study(store, space=SPACE, goal=GOAL, sampler="random", seed=7)
    rows = [r for r in resumed.trials() if r.state == "complete"]
    assert {(r.seed, r.value) for r in rows} == {(r.seed, r.value) for r in whole.trials()}
    assert len(rows) == n_trials
    assert len(lines(log)) - len(set(lines(log))) <= kills
    best, same = resumed.best, whole.best
    assert best and same and (best.params, best.value) == (same.params, same.value)
    assert not any(r.state in ("running", "waiting") for r in resumed.trials())


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_three_kills(tmp_path: Path, name: str) -> None:
    kill_test(tmp_path / name, kills=3, n_trials=22 if name == "study.db" else 40)


@pytest.mark.kill
@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_twenty_kills(tmp_path: Path, name: str) -> None:
    kill_test(tmp_path / name, kills=20, n_trials=250)


def ask_and_die(store: Path) -> None:
    Study(store, space=SPACE, goal=GOAL, sampler="random").ask()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_trial_that_always_kills_is_given_up(tmp_path: Path) -> None:
    store = tmp_path / "s.log"
    for _ in range(1 + MAX_RETRY):
        child = FORK.Process(target=ask_and_die, args=(store,))
        child.start()
        child.join()
    study = Study(store, space=SPACE, goal=GOAL, sampler="random")
    rows = study.trials()
    assert [r.state for r in rows] == ["fail"] * 3
    assert {r.error for r in rows} == {"its process ended"}
    assert len({(r.seed, str(r.params)) for r in rows}) == 1
    assert study.run(evaluate, 3) == 2  # it counts as one trial of the three


def test_a_living_process_keeps_its_trial(tmp_path: Path) -> None:
    mine = Study(tmp_path / "s.log", space=SPACE, goal=GOAL)
    trial = mine.ask()
    other = Study(tmp_path / "s.log", space=SPACE, goal=GOAL)
    assert [r.state for r in other.trials()] == ["running"]
    mine.tell(trial, Evaluation(1.0, {"cost": 0.0}))
    assert [r.state for r in other.trials()] == ["complete"]


def test_a_trial_killed_half_drawn_is_drawn_again(tmp_path: Path) -> None:
    whole = Study(tmp_path / "whole.log", space=SPACE, goal=GOAL, sampler="random").ask()
    child = FORK.Process(target=_die_half_drawn, args=(tmp_path / "s.log",))
    child.start()
    child.join()
    again = Study(tmp_path / "s.log", space=SPACE, goal=GOAL, sampler="random").ask()
    assert (again.params, again.seed) == (whole.params, whole.seed)


def _die_half_drawn(store: Path) -> None:
    study = Study(store, space=SPACE, goal=GOAL, sampler="random")
    study.optuna.enqueue_trial({}, user_attrs={"owner": me()})
    study.optuna.ask().suggest_int("width", 0, 3)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_with_lock(store: Path) -> None:
    Path(f"{store}.lock").symlink_to(me())
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_lock_does_not_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "s.log"
    child = FORK.Process(target=_die_with_lock, args=(store,))
    child.start()
    child.join()
    # Waiting means that the lock was not cleared at sight.
    monkeypatch.setattr("netfit.search._storage.time.sleep", lambda s: pytest.fail("waited for a dead lock"))
    Study(store, space=SPACE, goal=GOAL)
    assert not list(tmp_path.glob("*.lock*"))


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    store = tmp_path / "s.log"
    study = Study(store, space=SPACE, goal=GOAL)
    study.run(evaluate, 2)
    with store.open("ab") as file:
        file.write(b'{"op_code": 4, "stu')
    again = Study(store, space=SPACE, goal=GOAL)
    assert again.run(evaluate, 4) == 2
    assert Study(store, space=SPACE, goal=GOAL).trials() == again.trials()


def test_owners() -> None:
    assert alive(me())
    host, pid, start = me().split("|")
    assert not alive(f"{host}|{pid}|another{start}")  # the number was given to another process
    assert not alive("nobody")
    assert alive(f"elsewhere|{pid}|1")  # nothing is known of other machines
    child = FORK.Process(target=time.sleep, args=(60,))
    child.start()
    owner = f"{host}|{child.pid}|"
    child.kill()
    time.sleep(0.05)
    assert not alive(owner + "x")
    child.join()
