"""Candidates scored on a Ray cluster; where Ray is absent, what the user is told."""

import importlib.util
import threading

import pytest
import torch

from netfit.compress import Search, search_space
from netfit.compress._cost import TableMeter
from netfit.compress._evaluate import Evaluator
from netfit.errors import ConfigError, MissingExtraError

from .toys import BitOps, Small

absent = importlib.util.find_spec("ray") is None


class Alone(TableMeter):
    """Notices when two measurements overlap, and in which process they are made."""

    def __init__(self, *args):
        super().__init__(*args)
        self.busy, self.count = threading.Lock(), 0

    def cost(self, model):
        assert self.busy.acquire(blocking=False), "two measurements at once"
        self.count += 1
        try:
            return super().cost(model)
        finally:
            self.busy.release()


@pytest.fixture
def search(tmp_path):
    torch.manual_seed(0)
    net, x = Small(), torch.randn(300, 6)
    space = search_space(net, x[:2], target=BitOps())
    evaluator = Evaluator(net, space, x, (x, net(x).argmax(1)))

    def make(sampler):
        return Search(space, evaluator, Alone(BitOps(), net, (x[:1],)), goal=0.2, folder=tmp_path, sampler=sampler)

    return make


@pytest.mark.skipif(not absent, reason="ray is installed here")
def test_without_ray_the_extra_is_named(search):
    with pytest.raises(MissingExtraError, match=r"pip install 'netfit\[ray\]'"):
        search("random").run(4, ray="local")


def test_an_agent_neither_helps_nor_is_helped(search):
    with pytest.raises(ConfigError, match="learns in one process"):
        search("ddpg-joint").run(4, ray="local")
    with pytest.raises(ConfigError, match="learns in one process"):
        search("ddpg-joint").run(4, helping=True)


@pytest.mark.skipif(absent, reason="ray is not installed: pip install 'netfit[ray]'")
@pytest.mark.filterwarnings("ignore")  # Ray's own, of which there are many
def test_workers_score_while_the_driver_measures(search):
    import ray

    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        found = search("random")
        rows = found.run(10, ray="local")
        assert len(rows) == 10 and found.meter.count == 10
        for row in rows[:3]:  # the same numbers as in one process
            model = found.evaluator.build(found.space.candidate(row.params))
            assert row.value == pytest.approx(found.evaluator.score(model), abs=0.01)
        again = search("random")
        assert len(again.run(10, ray="local")) == 10 and again.meter.count == 0
    finally:
        ray.shutdown()
