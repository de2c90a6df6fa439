"""Everything a user can get wrong is one line that names the culprit and the remedy."""

import json

import pytest
import torch
from torch import nn

from netfit.compress import Prune, Settings, compress, plan_channels, search_space
from netfit.compress._slice import slice_model
from netfit.errors import ConfigError, JobError, NetfitError, PolicyConflict
from netfit.runs import Run
from netfit.surgery import Policy, Quantize, apply
from netfit.targets import parse

from .toys import BitOps, Small
from .zoo import build as zoo

X = torch.zeros(2, 6)


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.a(x)
        return self.b(y if y.sum() > 0 else -y)


class Nan(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.a, self.b = nn.Linear(64, 8), nn.Linear(8, num_classes)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1)))) * float("nan")


def one_line(error):
    assert isinstance(error.value, NetfitError) and "\n" not in str(error.value)
    return str(error.value)


def test_a_pattern_that_matches_no_layer():
    with pytest.raises(ConfigError) as e:
        apply(Small(), Policy({"fcc": Quantize()}), X)
    assert "'fcc' matches no site" in one_line(e) and "did you mean 'fc'" in one_line(e)


def test_conflicting_keeps_in_one_group():
    net, x = zoo("residual")
    with pytest.raises(PolicyConflict) as e:
        apply(net, Policy({"stem": Prune(keep=4), "a2": Prune(keep=6)}), x)
    assert "'stem' (keep 4)" in one_line(e) and "'a2' (keep 6)" in one_line(e) and "group" in one_line(e)


@pytest.mark.parametrize("keep", [0, 17])
def test_keep_nothing_or_more_than_there_is(keep):
    net = Small()
    with pytest.raises(ConfigError) as e:
        slice_model(net, plan_channels(net, X), {"a": keep})
    assert f"group 'a' cannot keep {keep} channels; allowed: 1 to 16" in one_line(e)


def test_a_precision_the_target_lacks(tmp_path):
    with Run.open(tmp_path / "r", "compress", {}, 0) as run, pytest.raises(ConfigError) as e:
        settings = Settings(family="uniform-int8", train_epochs=1)
        compress("digits-cnn", "digits", parse("macs"), 1.0, run, settings)
    assert "does not run conv2d layers such as 'conv1' at int8; it runs fp32" in one_line(e)


def test_control_flow_that_depends_on_data():
    with pytest.raises(NetfitError) as e:
        search_space(Branching(), X, target=BitOps())
    assert "control flow" in one_line(e) or "data" in one_line(e)


def test_an_example_input_of_a_wrong_shape():
    with pytest.raises(NetfitError) as e:
        search_space(Small(), torch.zeros(2, 7), target=BitOps())
    assert "7" in one_line(e)


def test_no_calibration_data():
    from netfit.deploy import export

    pytest.importorskip("onnx")
    with pytest.raises(ConfigError) as e:
        export(apply(Small().eval(), Policy({"a": Quantize()}), X), (X[:1],), "unused.onnx")
    assert "not calibrated" in one_line(e)


@pytest.mark.parametrize("text", ["remote:http://127.0.0.1:9", "hots", "macs:7"])
def test_a_target_that_cannot_be_reached(text):
    with pytest.raises(NetfitError) as e:
        parse(text).cost(Small(), X[:1])
    assert text.split(":")[0] in one_line(e) or "127.0.0.1:9" in one_line(e)


def test_a_goal_below_the_floor_prints_the_floor(tmp_path):
    settings = Settings(trials=3, sampler="uniform", epochs=1, train_epochs=1)
    with Run.open(tmp_path / "r", "compress", {}, 0) as run, pytest.raises(JobError) as e:
        compress("digits-cnn", "digits", parse("bops"), 1e-4, run, settings)
    floor = min(t["ratio"] for t in json.loads((tmp_path / "r" / "result.json").read_text())["trials"])
    assert f"nearest reachable is {floor:.3f}" in one_line(e)


def test_a_study_of_another_model(tmp_path):
    from netfit.compress import Search
    from netfit.compress._cost import TableMeter
    from netfit.compress._evaluate import Evaluator

    def search(weights):
        net = Small()
        space = search_space(net, X, target=BitOps())
        parts = Evaluator(net, space, X, (X, X[:, 0].long())), TableMeter(BitOps(), net, (X[:1],))
        return Search(space, *parts, goal=0.5, folder=tmp_path, identity={"weights": weights})

    search("one")
    with pytest.raises(ConfigError) as e:
        search("two")
    assert "the store holds another study: fingerprint.identity was" in one_line(e)


def test_logits_that_are_no_numbers():
    from netfit.compress._evaluate import Evaluator

    net = Nan()
    x = torch.zeros(4, 1, 8, 8)
    space = search_space(net, x[:2], target=BitOps())
    with pytest.raises(JobError) as e:
        Evaluator(net, space, x, (x, torch.zeros(4, dtype=torch.long))).score(net)
    assert "not finite" in one_line(e)
