"""Galen's agents at work: whole searches, kills and resumption, against random draws."""

import pytest
import torch
from optuna.storages import InMemoryStorage
from torch import nn

from netfit.compress import Search, search_space
from netfit.compress._cost import TableMeter
from netfit.compress._evaluate import Evaluator
from netfit.compress.agents import DdpgSampler
from netfit.errors import ConfigError
from netfit.search import Evaluation, Goal, Study

from .toys import BitOps, Small

GOAL, WIDTH, DEPTH = 0.12, 16, 6


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def space():
    layers = [m for _ in range(DEPTH) for m in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return search_space(nn.Sequential(*layers, nn.Linear(WIDTH, 4)), torch.zeros(1, WIDTH), target=BitOps())


@pytest.fixture(scope="module")
def damage():
    prune = {str(2 * i): [(i + 1) * j / 10 for j in range(10)] for i in range(DEPTH)}
    return {"prune": prune, "int8": {str(2 * i): [0.1] for i in range(DEPTH + 1)}}


def toy(space):
    """Score and cost in closed form: later layers matter more, low precision costs little accuracy."""

    def evaluate(trial):
        chosen = space.candidate(trial.params)
        keep = [chosen.keep[str(2 * i)] / WIDTH for i in range(DEPTH)]
        bits = [0.25 if p == "int8" else 1.0 for p in chosen.precision.values()]
        work = [i * o * b for i, o, b in zip([1, *keep], [*keep, 0.25], bits, strict=True)]
        lost = sum((i + 1) * (1 - k) ** 2 for i, k in enumerate(keep)) / 21 + 0.003 * bits.count(0.25)
        return Evaluation(1 - lost, {"latency": sum(work) / (DEPTH + 0.25) - GOAL})

    return evaluate


def opened(space, damage, folder, agent="joint", seed=0, on_disk=False):
    sampler = DdpgSampler(space, agent, damage, goal=GOAL, folder=folder, seed=seed)
    store = folder if on_disk else InMemoryStorage()
    study = Study(store, space=space.dimensions(), goal=Goal(constraints=("latency",)), sampler=sampler, seed=seed)
    return study, sampler


def done(study):
    return [(r.params, r.value) for r in study.trials() if r.state == "complete"]


def same(one, other):
    tensors = one.ddpg.tensors() | one.replay.tensors()
    others = other.ddpg.tensors() | other.replay.tensors()
    return (
        all(torch.equal(v, others[k]) for k, v in tensors.items())
        and torch.equal(one.normaliser.mean, other.normaliser.mean)
        and (one.episodes, one.normaliser.count) == (other.episodes, other.normaliser.count)
        and one.ddpg.mean_reward == other.ddpg.mean_reward
    )


def test_a_search_killed_anywhere_ends_with_the_same_agent(space, damage, tmp_path, monkeypatch):
    whole, agent = opened(space, damage, tmp_path / "whole")
    whole.run(toy(space), 24)  # the networks are updated from the 20th on: 7 steps each, 128 transitions

    def die_while_evaluating(trial):
        if trial.number == 5:
            raise Killed
        return toy(space)(trial)

    study, _ = opened(space, damage, tmp_path / "killed", on_disk=True)
    with pytest.raises(Killed):
        study.run(die_while_evaluating, 24)
    study, _ = opened(space, damage, tmp_path / "killed", on_disk=True)
    learn = DdpgSampler._save

    def die_before_the_trial_is_stored(self):
        learn(self)
        if self.episodes == 22:
            monkeypatch.setattr(study.optuna._storage, "set_trial_state_values", die)

    def die(*args, **kwargs):
        monkeypatch.undo()
        raise Killed

    monkeypatch.setattr(DdpgSampler, "_save", die_before_the_trial_is_stored)
    with pytest.raises(Killed):
        study.run(toy(space), 24)
    study, resumed = opened(space, damage, tmp_path / "killed", on_disk=True)
    assert resumed.episodes == 22 and len(done(study)) == 21
    study.run(toy(space), 24)
    assert done(study) == done(whole)
    assert same(resumed, agent) and agent.episodes == 24 and agent.ddpg.mean_reward is not None


def test_seeds_decide_everything(space, damage, tmp_path):
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        found[name], _ = opened(space, damage, tmp_path / name, seed=seed)
        found[name].run(toy(space), 4)
    assert done(found["a"]) == done(found["b"]) != done(found["c"])


def test_nothing_is_learnt_before_the_warm_up_is_over_and_128_transitions_are_there(space, damage, tmp_path):
    study, sampler = opened(space, damage, tmp_path)
    fresh = sampler.ddpg.tensors()
    study.run(toy(space), 18)
    assert len(sampler.replay) == 18 * (DEPTH + 1) - 1 == 125 and sampler.ddpg.mean_reward is None
    assert all(torch.equal(v, fresh[k]) for k, v in sampler.ddpg.tensors().items())
    study.run(toy(space), 19)
    assert sampler.ddpg.mean_reward is not None and len(sampler.replay) == 132


def test_the_reward_is_score_and_distance_from_the_goal(space, damage, tmp_path):
    study, sampler = opened(space, damage, tmp_path)
    study.run(toy(space), 3)
    row = study.trials()[1]
    reward = row.value - 5 * abs((row.constraints["latency"] + GOAL) / GOAL - 1)
    # the first trial left six transitions, the second follows
    assert sampler.replay.tensors()["replay/reward"][6:13].tolist() == pytest.approx([reward] * 7)


def test_failed_trials_teach_nothing(space, damage, tmp_path):
    study, sampler = opened(space, damage, tmp_path)
    points = []

    def fail(trial):
        points.append(trial.params)
        return Evaluation(float("nan"), {"latency": 0.0})

    study.run(fail, 3)
    assert sampler.episodes == len(sampler.replay) == 0 and points[0] != points[1] != points[2]


def test_a_point_from_elsewhere_is_learnt_as_the_actions_that_give_it(space, damage, tmp_path):
    study, sampler = opened(space, damage, tmp_path)
    point = space.params(space.uniform(0.5))
    study.enqueue(point)
    study.run(toy(space), 1)
    assert done(study)[0][0] == point
    actions = sampler.replay.tensors()["replay/action"][: DEPTH - 1]
    for i, action in enumerate(actions.tolist(), start=1):
        op = sampler.features.layers[i]
        assert sampler._decide(op, action) == {f"keep:{op.name}": 8, f"precision:{op.name}": "int8"}


@pytest.mark.parametrize(("agent", "other"), [("prune", "precision:"), ("quantize", "keep:")])
def test_what_an_agent_has_no_action_for_stays_uncompressed(space, damage, tmp_path, agent, other):
    study, _ = opened(space, damage, tmp_path, agent)
    study.run(toy(space), 3)
    for params, _ in done(study):
        for kind, untouched in (("precision:", "fp32"), ("keep:", WIDTH)):
            assert all(v == untouched for k, v in params.items() if k.startswith(kind)) == (kind == other)


def test_the_joint_agent_beats_random_draws(space, damage, tmp_path):
    found, _ = opened(space, damage, tmp_path)
    drawn = Study(InMemoryStorage(), space=space.dimensions(), goal=found.goal, sampler="random")
    for study in (found, drawn):
        study.run(toy(space), 80)
    assert found.best.value > drawn.best.value + 0.01
    ratios = [[r.constraints["latency"] + GOAL for r in s.trials()[20:]] for s in (found, drawn)]
    agent, chance = (sum(abs(r / GOAL - 1) for r in listed) / len(listed) for listed in ratios)
    assert agent < chance / 2


def test_an_agent_without_anything_to_choose_is_refused(tmp_path):
    space = search_space(Small(), torch.randn(2, 6), target=BitOps(), methods=["prune"])
    with pytest.raises(ConfigError, match="sampler 'ddpg-quantize' has no layer to choose for"):
        DdpgSampler(space, "quantize", {"prune": {}, "int8": {}}, goal=0.5, folder=tmp_path)


@pytest.mark.parametrize("sampler", ["nsga2", "ddpg-joint"])
def test_a_search_goes_on_with_its_sampler(tmp_path, sampler):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    space = search_space(net, x[:1], target=BitOps())
    evaluator = Evaluator(net, space, x, (x, net(x).argmax(1)))

    def search(trials):
        gauge = TableMeter(BitOps(), net, (x[:1],))
        seen = []
        made = Search(space, evaluator, gauge, goal=0.3, folder=tmp_path, sampler=sampler, progress=seen.append)
        return made.run(trials), seen

    first, seen = search(4)
    assert [f["origin"] for f in seen] == [sampler] * 4
    rows, seen = search(8)
    assert rows[:4] == first and len(rows) == 8 and len(seen) == 4
    assert {r.note for r in rows} == {None} and any(r.feasible for r in rows)
