import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from search_toys import GOAL, SPACE, breaks_on_narrow, evaluate, fails_on_narrow

from netfit.errors import ArtifactError, ConfigError
from netfit.search import Categorical, Evaluation, Float, Goal, IntChoice, Study, Trial


def memory(sampler: Any = "random", **more: Any) -> Study:
    return Study(optuna.storages.InMemoryStorage(), space=SPACE, goal=GOAL, sampler=sampler, **more)


def points(study: Study) -> list[tuple[Any, ...]]:
    return [(r.number, tuple(r.params.items()), r.seed, r.value) for r in study.trials()]


@pytest.mark.parametrize("name", ["run", "run/s.db", "run/s.log"])
def test_a_finished_search_costs_nothing_again(tmp_path: Path, name: str) -> None:
    first = Study(tmp_path / name, space=SPACE, goal=GOAL, sampler="random", fingerprint={"cpu": "x"})
    assert first.run(evaluate, 6) == 6
    again = Study(tmp_path / name, space=SPACE, goal=GOAL, sampler="random", fingerprint={"cpu": "x"})
    assert again.run(evaluate, 6) == 0
    assert again.trials() == first.trials()
    assert again.run(evaluate, 8) == 2


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_cut_in_pieces_equals_the_whole(tmp_path: Path, sampler: str) -> None:
    whole = memory(sampler, seed=5)
    whole.run(evaluate, 24)
    for n in (7, 15, 24):
        pieces = Study(tmp_path / "s.log", space=SPACE, goal=GOAL, sampler=sampler, seed=5)
        pieces.run(evaluate, n)
    assert points(pieces) == points(whole)


def test_seeds_differ_between_trials_and_studies() -> None:
    a, b = memory(seed=1), memory(seed=2)
    a.run(evaluate, 5)
    b.run(evaluate, 5)
    assert len({r.seed for r in a.trials() + b.trials()}) == 10
    assert not {str(r.params) for r in a.trials()} & {str(r.params) for r in b.trials()}


def test_constrained_tpe_finds_a_feasible_optimum() -> None:
    space = {f"keep{i}": IntChoice((8, 16, 24, 40, 64)) for i in range(4)}

    def toy(trial: Trial) -> Evaluation:
        keeps = list(trial.params.values())
        # The first layers matter more; the unconstrained optimum is far outside of the bound.
        score = sum((4 - i) * math.sqrt(k) for i, k in enumerate(keeps))
        return Evaluation(score, {"latency": sum(keeps) / 256 - 0.5})

    goal = Goal(constraints=("latency",))
    study = Study(optuna.storages.InMemoryStorage(), space=space, goal=goal, seed=0)
    study.run(toy, 90)
    best = study.best
    assert best is not None and best.constraints["latency"] <= 0
    every = itertools.product(*(d.values for d in space.values()))
    optimum = max(sum((4 - i) * math.sqrt(k) for i, k in enumerate(v)) for v in every if sum(v) <= 128)
    assert best.value is not None and best.value >= 0.95 * optimum  # 90 of 625 points were tried
    later = study.trials()[45:]
    assert sum(r.feasible for r in later) > len(later) / 2


def test_best_is_feasible_and_cheap() -> None:
    study = memory()
    point = {"width": 8, "depth": 1, "format": "fp32", "rate": 0.0}
    study.add(point, Evaluation(9.0, {"cost": 0.1}), note="infeasible")
    assert study.best is None
    study.add(point, Evaluation(5.0, {"cost": -0.1}), note="dear")
    study.add(point, Evaluation(5.0, {"cost": -0.2}), note="cheap")
    study.add(point, Evaluation(4.0, {"cost": -0.2}), note="worse")
    assert study.best is not None and study.best.note == "cheap"
    assert [r.note for r in study.pareto()] == ["infeasible", "cheap"]
    assert study.trials()[0].violation == pytest.approx(0.1)


def test_minimize() -> None:
    study = Study(optuna.storages.InMemoryStorage(), space={"x": Float(-1, 1)}, goal=Goal(maximize=False))
    study.run(lambda t: Evaluation(t.params["x"] ** 2), 12)
    assert study.best is not None and study.best.value == min(r.value or 0.0 for r in study.trials())
    assert study.pareto() == [study.best]


def test_enqueued_points_come_first_and_added_ones_only_once() -> None:
    study = memory("tpe")
    point = {"width": 64, "depth": 5, "format": "int8", "rate": 0.5}
    study.enqueue(point, note="uniform")
    study.add(point, evaluate(Trial(0, point, 0)), note="greedy")
    study.add(point, evaluate(Trial(0, point, 0)), note="greedy")
    assert study.run(evaluate, 3) == 2
    rows = study.trials()
    assert [r.note for r in rows] == ["uniform", "greedy", None]
    assert rows[0].params == rows[1].params == point
    assert rows[0].attrs == {"bits": 8}


def test_failures_are_recorded_and_the_search_goes_on() -> None:
    study = memory()
    assert study.run(fails_on_narrow, 20) == 20
    failed = [r for r in study.trials() if r.state == "fail"]
    assert failed and {r.error for r in failed} == {"TargetError: too narrow for this target"}
    assert all(r.params["width"] == 8 for r in failed)


@pytest.mark.parametrize("evaluation", [Evaluation(math.nan, {"cost": 0.0}), Evaluation(1.0, {"cost": math.inf})])
def test_numbers_that_are_none_are_failures(evaluation: Evaluation) -> None:
    study = memory()
    study.run(lambda t: evaluation, 2)
    assert [r.state for r in study.trials()] == ["fail", "fail"]
    assert study.best is None and study.pareto() == []


def test_other_exceptions_fail_the_trial_and_are_raised() -> None:
    study = memory()
    with pytest.raises(ZeroDivisionError):
        study.run(breaks_on_narrow, 30)
    last = study.trials()[-1]
    assert last.state == "fail" and last.error == "ZeroDivisionError: division by zero"


def test_an_interrupt_repeats_the_trial() -> None:
    whole, study = memory(), memory()
    whole.run(evaluate, 6)
    interrupts = iter([True] * 4)  # more often than a trial may kill its process

    def interrupted(trial: Trial) -> Evaluation:
        if trial.number >= 3 and next(interrupts, False):
            raise KeyboardInterrupt
        return evaluate(trial)

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            study.run(interrupted, 6)
    study.run(interrupted, 6)
    done = [r for r in study.trials() if r.state == "complete"]
    assert {(str(r.params), r.seed, r.value) for r in done} == {
        (str(r.params), r.seed, r.value) for r in whole.trials()
    }
    assert [r.error for r in study.trials() if r.state == "fail"] == ["interrupted: KeyboardInterrupt: "] * 4


def test_an_interrupt_while_drawing_repeats_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    study = memory()
    mine = study.ask()  # asked by hand: not the run's to give up
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(optuna.trial.Trial, "suggest_float", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        study.run(evaluate, 3)
    assert [r.state for r in study.trials()] == ["running", "fail", "waiting"]
    study.tell(mine, evaluate(mine))
    study.run(evaluate, 2)
    assert [r.state for r in study.trials()] == ["complete", "fail", "complete"]
    assert study.trials()[1].seed == study.trials()[2].seed


def test_timeout_and_progress() -> None:
    study = memory()
    seen: list[tuple[int, int]] = []
    assert study.run(evaluate, 3, timeout=0.0) == 0
    study.run(evaluate, 3, progress=lambda *p: seen.append(p))
    assert seen == [(1, 3), (2, 3), (3, 3)]


class Lowest(optuna.samplers.RandomSampler):
    """A third party's sampler."""

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if isinstance(param_distribution, optuna.distributions.CategoricalDistribution):
            return param_distribution.choices[0]
        return param_distribution.low


def test_any_optuna_sampler() -> None:
    study = memory(Lowest())
    assert study.run(evaluate, 2) == 2
    assert study.trials()[1].params == {"width": 8, "depth": 1, "format": "fp32", "rate": 0.0}


def test_the_optuna_study_is_usable_by_itself() -> None:
    study = memory()
    study.run(evaluate, 4)
    assert study.best is not None
    assert study.optuna.best_trial.number == study.best.number
    assert study.optuna.trials[0].constraints.keys() == {"cost"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": {"cpu": {"flags": ["avx2"]}}}, r"fingerprint\.cpu\.flags was \['avx512'\], now \['avx2'\]"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"goal": Goal()}, r"goal\.constraints was \['cost'\], now \[\]"),
        ({"space": {**SPACE, "extra": Float(0, 1)}}, r"space\.extra was absent, now \['Float', 0, 1\]"),
        ({"space": {**SPACE, "rate": Float(0, 2)}}, r"space\.rate"),
    ],
)
def test_drift_is_refused_unless_allowed(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    same: dict[str, Any] = {"space": SPACE, "goal": GOAL, "fingerprint": {"cpu": {"flags": ["avx512"]}}}
    old = Study(tmp_path / "s.log", **same)
    old.run(evaluate, 2)
    with pytest.raises(ConfigError, match=words):
        Study(tmp_path / "s.log", **{**same, **change})
    drifted = Study(tmp_path / "s.log", **{**same, **change}, allow_drift=True)
    assert [r.params for r in drifted.trials()] == [r.params for r in old.trials()]
    drifted.run(lambda t: Evaluation(1.0, dict.fromkeys(drifted.goal.constraints, 0.0)), 3)
    Study(tmp_path / "s.log", **{**same, **change})  # what was allowed is the study now


def test_drift_that_would_misread_trials_is_always_refused(tmp_path: Path) -> None:
    Study(tmp_path / "s.log", space=SPACE, goal=GOAL)
    for change in ({"width": IntChoice((8, 16))}, {"format": Categorical(("int8", "fp32"))}, {"rate": IntChoice((0,))}):
        with pytest.raises(ConfigError, match="misread"):
            Study(tmp_path / "s.log", space={**SPACE, **change}, goal=GOAL, allow_drift=True)
    with pytest.raises(ConfigError, match="maximize"):
        Study(tmp_path / "s.log", space=SPACE, goal=Goal(False, ("cost",)), allow_drift=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IntChoice((8, 8)), "differ"),
        (lambda: IntChoice((16, 8)), "increase"),
        (lambda: IntChoice(()), "at least one"),
        (lambda: IntChoice((1.5,)), "integers"),  # type: ignore[arg-type]
        (lambda: Categorical(((1, 2),)), "text"),  # type: ignore[arg-type]
        (lambda: Float(1, 0), "lo <= hi"),
        (lambda: Float(0, math.inf), "finite"),
        (lambda: Goal(constraints=("a", "a")), "twice"),
        (lambda: memory("tep"), "did you mean 'tpe'"),
        (lambda: memory(seed=-1), "seed"),
        (lambda: memory(fingerprint={"x": object()}), "JSON"),
        (lambda: Study("x.db", space={}, goal=GOAL), "empty"),
        (lambda: Study("x.db", space={"x": (1, 2)}, goal=GOAL), r"space\['x'\]"),  # type: ignore[dict-item]
        (lambda: memory().enqueue({"widht": 8}), "did you mean 'width'"),
        (lambda: memory().enqueue({"width": 8}), "lacks a value for dimension 'depth'"),
        (lambda: memory().enqueue({"width": 9, "depth": 1, "format": "int8", "rate": 0}), "width=9"),
        (lambda: memory().run(lambda t: Evaluation(1.0), 1), "lacks the goal's constraint 'cost'"),
        (lambda: memory().run(lambda t: Evaluation(1.0, {"cots": 0.0}), 1), "did you mean 'cost'"),
        (lambda: memory().run(lambda t: 1.0, 1), "Evaluation"),  # type: ignore[arg-type,return-value]
        (lambda: memory().run(evaluate, 1, n_jobs=0), "n_jobs"),
        (lambda: memory().tell(Trial(7, {}, 0), Evaluation(1.0, {"cost": 0.0})), "trial 7"),
        (lambda: Study("nosuchdb://host/x", space=SPACE, goal=GOAL), "nosuchdb"),
        (lambda: Study("study.txt", space=SPACE, goal=GOAL), "ending in"),
    ],
)
def test_bad_input_is_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["s.db", "s.log"])
def test_a_damaged_store_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"op_code": no json}\n' * 100)
    with pytest.raises(ArtifactError, match=name):
        Study(tmp_path / name, space=SPACE, goal=GOAL)
