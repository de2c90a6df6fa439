"""The predictor learns costs from measurements, and only ever keeps hopeless candidates from being measured."""

import numpy as np
import pytest
import torch

from netfit.compress import Search, search_space
from netfit.compress._cost import TableMeter
from netfit.compress._evaluate import Evaluator
from netfit.compress._predict import LEAST, Predictor
from netfit.search import Row

from .toys import BitOps, Small


@pytest.fixture
def space():
    torch.manual_seed(0)
    return search_space(Small(), torch.randn(2, 6), target=BitOps())


@pytest.fixture
def parts(space):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    return Evaluator(net, space, x, (x, net(x).argmax(1))), TableMeter(BitOps(), net, (x[:1],))


def rows(space, parts, n, seed=0):
    """Random candidates with their costs, as a study would hold them."""
    evaluator, gauge = parts
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        params = {}
        for name in space.dimensions():
            options = space.steps[name[5:]] if name.startswith("keep:") else space.precisions[name[10:]]
            params[name] = options[rng.integers(len(options))]
        cost = gauge.cost(evaluator.build(space.candidate(params)))
        found.append(Row(i, "complete", params, 0, 0.5, {}, {"cost": {"ratio": cost.ratio}}, None, None, None))
    return found


def test_costs_that_follow_the_work_are_predicted_closely(space, parts):
    known, new = rows(space, parts, 24), rows(space, parts, 6, seed=1)
    predictor = Predictor(space)
    for row in new:
        guess = predictor.guess(space.candidate(row.params), known)
        assert guess.ratio == pytest.approx(row.attrs["cost"]["ratio"], rel=0.12)
        assert guess.least <= row.attrs["cost"]["ratio"] and guess.least < guess.ratio


def test_nothing_is_guessed_from_few_measurements(space, parts):
    known = rows(space, parts, LEAST)
    assert Predictor(space).guess(space.uniform(0.5), known[:-1]) is None
    assert Predictor(space).guess(space.uniform(0.5), known) is not None


@pytest.mark.parametrize(("sampler", "may_skip"), [("tpe", True), ("random", False)])
def test_hopeless_candidates_are_skipped_and_cost_no_trial(space, parts, tmp_path, sampler, may_skip):
    evaluator, gauge = parts
    built = []
    build, evaluator.build = evaluator.build, lambda c: built.append(c) or build(c)
    search = Search(space, evaluator, gauge, goal=0.12, folder=tmp_path, sampler=sampler)
    found = search.run(20)
    facts = search.prediction()
    assert len(found) == 20 and len(built) <= 20
    assert (facts["skipped"] > 0) == may_skip
    assert all("cost" in r.attrs for r in found)
    if may_skip:
        skipped = [r for r in search.study.trials() if "cost" not in r.attrs]
        assert len(skipped) == facts["skipped"]
        for row in skipped:  # it was right to skip them
            assert row.violation > 0
            assert gauge.cost(build(space.candidate(row.params))).ratio > 0.12
        assert facts["guessed"] > 0 and facts["mape"] < 0.2 and facts["spearman"] > 0.5
    assert len(search.run(20)) == 20  # a finished search does nothing more
