"""The main job on a deterministic target: cost is multiply-accumulates times bits, so nothing depends on a clock."""

import json

import pytest
import torch
from torch import nn

from netfit.compress import Search, Settings, compress, search_space
from netfit.compress._cost import TableMeter
from netfit.compress._evaluate import Evaluator
from netfit.errors import ConfigError, JobError
from netfit.runs import Run
from netfit.surgery import Policy, Quantization, apply, load, plain

from .toys import USER_NET, BitOps, Small


@pytest.fixture
def user_net(tmp_path):
    (tmp_path / "mine.py").write_text(USER_NET)
    return f"{tmp_path / 'mine.py'}:Net"


def job(spec, path, goal, **settings):
    stages = []
    with Run.open(path, "compress", {"goal": goal}, 0) as run:
        chosen = Settings(**({"trials": 12, "epochs": 1, "finalists": 2, "train_epochs": 3} | settings))
        result = compress(spec, "digits", BitOps(), goal, run, chosen, lambda stage, facts: stages.append(stage))
    return result, stages


def test_a_users_model_meets_its_goal_and_leaves_everything_behind(user_net, tmp_path):
    result, stages = job(user_net, tmp_path / "run", 0.12)
    assert result["final"]["met"] and result["final"]["ratio"] <= 0.12
    assert {t["origin"] for t in result["trials"]} >= {"uniform", "sensitivity", "greedy"}
    assert len(result["trials"]) == 12 and result["chosen"] in {t["number"] for t in result["trials"]}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["final"] == result["final"]
    assert {"train", "search", "retrain"} <= set(stages)
    # what the policy file says is what the saved network is
    from netfit.models import build

    policy, x = Policy.load(tmp_path / "run" / "policy.toml"), torch.zeros(2, 1, 8, 8)
    shapes = {k: v.shape for k, v in plain(apply(build(user_net), policy, x)).state_dict().items()}
    saved = load(tmp_path / "run" / "model", model=build(user_net))
    assert {k: v.shape for k, v in plain(saved.model).state_dict().items()} == shapes
    assert saved.policy == policy


def test_a_finished_job_is_read_back_without_work(user_net, tmp_path, monkeypatch):
    first, _ = job(user_net, tmp_path / "run", 0.2, trials=8)
    monkeypatch.setattr(Evaluator, "score", lambda *a: pytest.fail("a finished search evaluated again"))
    again, stages = job(user_net, tmp_path / "run", 0.2, trials=8)
    assert again["final"] == first["final"] and "train" not in stages and "retrain" not in stages


def test_a_goal_below_the_floor_names_the_nearest_and_keeps_it(user_net, tmp_path):
    with pytest.raises(JobError, match=r"goal 0.0001 not met: nearest reachable is 0\.0\d+") as caught:
        job(user_net, tmp_path / "run", 0.0001, trials=6)
    assert "\n" not in str(caught.value)
    assert not json.loads((tmp_path / "run" / "result.json").read_text())["final"]["met"]
    assert (tmp_path / "run" / "policy.toml").exists() and (tmp_path / "run" / "model").is_dir()


def test_too_much_accuracy_lost_fails_with_the_best_kept(user_net, tmp_path):
    with pytest.raises(JobError, match="points of accuracy lost, more than -100"):
        job(user_net, tmp_path / "run", 0.9, trials=4, max_drop=-100.0)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_saved_network_is_retrained_by_the_recipe_of_its_original(tmp_path):
    from netfit.compress._job import _recipe
    from netfit.models import build, recipe
    from netfit.surgery import save

    save(build("digits-cnn"), tmp_path / "net", spec="digits-cnn", example_inputs=[torch.zeros(1, 1, 8, 8)])
    assert _recipe(str(tmp_path / "net")) == recipe("digits-cnn") == _recipe("digits-cnn")
    save(nn.Linear(4, 3), tmp_path / "own", spec="mine.py:Net", example_inputs=[torch.zeros(1, 4)])
    assert _recipe(str(tmp_path / "own")) == recipe("mine.py:Net")


@pytest.mark.parametrize("goal", [0, -1, 1.5])
def test_goals_that_are_no_fraction(user_net, tmp_path, goal):
    with pytest.raises(ConfigError, match="latency must be a fraction"):
        job(user_net, tmp_path / "run", goal)


def test_wrong_number_of_classes_is_named(tmp_path):
    (tmp_path / "seven.py").write_text(
        USER_NET.replace("num_classes=10", "classes=7").replace("num_classes", "classes")
    )
    with pytest.raises(ConfigError, match="returns 7 values a sample, digits has 10 classes"):
        job(f"{tmp_path / 'seven.py'}:Net", tmp_path / "run", 0.5)


@pytest.fixture
def space():
    torch.manual_seed(0)
    return search_space(Small(), torch.randn(2, 6), target=BitOps())


def test_space_offers_what_target_and_groups_allow(space):
    assert space.steps == {"a": (2, 4, 6, 8, 10, 12, 14, 16), "b": (1, 2, 3, 4, 5, 6, 7, 8)}
    assert space.precisions == dict.fromkeys(["a", "b", "fc"], ("fp32", "int8"))
    candidate = space.uniform(0.5)
    assert candidate.keep == {"a": 8, "b": 4} and set(candidate.precision.values()) == {"int8"}
    assert space.candidate(space.params(candidate)) == candidate


def test_policy_of_a_candidate_builds_the_candidate(space):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    candidate = space.candidate({"keep:a": 6, "precision:b": "int8"})
    evaluator = Evaluator(net, space, x, (x, torch.zeros(300, dtype=torch.long)))
    evaluator._moments = None  # restoring them changes weights, and has tests of its own
    built = evaluator.build(candidate)
    applied = apply(net, space.policy(candidate), x)
    assert all(torch.equal(v, plain(built).state_dict()[k]) for k, v in plain(applied).state_dict().items())
    assert Quantization.of(built).plan == Quantization.of(applied).plan


def test_ignored_layers_keep_width_and_precision():
    space = search_space(Small(), torch.randn(2, 6), target=BitOps(), ignore=["a"])
    assert "a" not in space.steps and space.precisions["a"] == ("fp32",)
    with pytest.raises(ConfigError, match="ignore pattern 'z' matches no layer"):
        search_space(Small(), torch.randn(2, 6), target=BitOps(), ignore=["z"])


def test_unknown_method_and_sampler(space, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown method 'prun'.*did you mean 'prune'"):
        search_space(Small(), torch.randn(2, 6), target=BitOps(), methods=["prun"])
    with pytest.raises(ConfigError, match="unknown sampler 'tpee'"):
        Search(space, None, None, goal=0.5, folder=tmp_path, sampler="tpee")


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "uniform"])
def test_every_sampler_finds_a_candidate_within_the_goal(space, tmp_path, sampler):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    evaluator = Evaluator(net, space, x, (x, net(x).argmax(1)))
    gauge = TableMeter(BitOps(), net, (x[:1],))
    search = Search(space, evaluator, gauge, goal=0.2, folder=tmp_path, sampler=sampler)
    rows = search.run(25)
    best = search.study.best
    assert best is not None and best.constraints["latency"] <= 0
    assert gauge.cost(evaluator.build(space.candidate(best.params))).ratio == pytest.approx(
        best.constraints["latency"] + 0.2
    )
    assert len(rows) == 25 if sampler != "uniform" else len(rows) <= 7
