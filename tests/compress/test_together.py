"""Several processes on one study, several targets beside each other."""

import json
import subprocess
import sys
import time

import optuna
import pytest
import torch

from netfit.compress import Search, Settings, compress, search_space
from netfit.compress._cost import TableMeter
from netfit.compress._evaluate import Evaluator
from netfit.compress._specialise import specialisation
from netfit.runs import Run
from netfit.targets import parse

from .toys import BitOps, Small


@pytest.fixture
def make(tmp_path):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    labels = net(x).argmax(1)

    def search(folder, target=None, **more):
        target = target or BitOps()
        space = search_space(net, x[:2], target=target)
        evaluator = Evaluator(net, space, x, (x, labels))
        gauge = TableMeter(target, net, (x[:1],))
        return Search(space, evaluator, gauge, goal=0.3, folder=tmp_path / folder, **more)

    return search


def test_a_helper_leaves_the_seeds_to_the_owner(make):
    helper = make("a")
    assert {r.note for r in helper.run(4, helping=True)} == {None}
    assert {r.note for r in make("a").run(9)} >= {None, "uniform"}


def test_jobs_that_name_one_store_share_their_trials(make, tmp_path, monkeypatch):
    store = f"sqlite:///{tmp_path / 'shared.db'}"
    make("a", store=store, sampler="random").run(5)
    second = make("b", store=store, sampler="random")
    evaluated = []
    build = second.evaluator.build
    monkeypatch.setattr(second.evaluator, "build", lambda c: evaluated.append(c) or build(c))
    assert len(second.run(7)) == 7 and len(evaluated) == 2


def test_the_policy_of_a_target_is_costed_on_all(make):
    searches = {name: make(name, parse(name)) for name in ("macs", "bytes")}
    for search in searches.values():
        search.run(8)
    table = specialisation(searches)
    assert table["targets"] == ["macs", "bytes"]
    for on in searches:
        own = searches[on].study.best
        assert table["score"][on][on] == own.value, "the best of a search is among its policies"
        for policy in table["policies"][on]:
            row = searches[on].study.trials()[policy["number"]]
            assert policy["ratio"][on] == pytest.approx(row.attrs["cost"]["ratio"])
            assert policy["ratio"].keys() == {"macs", "bytes"}
    # on bytes, int8 weights alone meet the goal; on macs, nothing but fewer channels does
    assert min(p["ratio"]["macs"] for p in table["policies"]["macs"]) < 0.3
    assert "macs" in table["diagonal_best"] or table["score"]["macs"]["bytes"] > table["score"]["macs"]["macs"]


def test_a_job_with_another_target_has_a_table(tmp_path):
    settings = Settings(trials=4, sampler="uniform", epochs=1, finalists=1, train_epochs=1, also=("macs",))
    with Run.open(tmp_path / "r", "compress", {"target": "bops"}, 0) as run:
        result = compress("digits-cnn", "digits", parse("bops"), 0.3, run, settings)
    assert result["also"]["targets"] == ["bops", "macs"] and result["target"] == "bops"
    assert result["also"]["score"]["bops"]["bops"] is not None
    assert (tmp_path / "r" / "also" / "macs" / "study.db").exists()


@pytest.mark.slow
def test_a_second_process_joins_a_running_job(tmp_path):
    words = "compress digits-cnn --data digits --target bops --latency 0.3 --sampler random --trials 30 --epochs 1"
    command = [sys.executable, "-m", "netfit", *words.split(), "--run", str(tmp_path / "r"), "--json"]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (tmp_path / "r" / "run.json").exists():
        assert owner.poll() is None
        time.sleep(0.05)
    helper = subprocess.run(command, capture_output=True, text=True)
    assert helper.returncode == 0, helper.stderr
    assert json.loads(helper.stdout)["joined"] and "helping the job in" in helper.stderr
    out, err = owner.communicate()
    assert owner.returncode == 0, err.decode()
    trials = json.loads(out)["trials"]
    assert len(trials) == 30
    study = optuna.load_study(study_name="netfit", storage=f"sqlite:///{tmp_path / 'r' / 'study.db'}")
    owners = [t.user_attrs["owner"].split("|")[1] for t in study.trials]
    assert set(owners) == {str(owner.pid), owners[-1], owners[0]} and len(set(owners)) == 2, "both did trials"
