import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize
from netfit.targets import parse
from netfit.targets.vta import VTA, Config
from netfit.testing import TargetContract


class TestContract(TargetContract):
    @pytest.fixture
    def target(self):
        return parse("vta")


def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten(), nn.Linear(16 * 36, 10)
    )


def test_a_network_with_every_kind_of_product():
    table = parse("vta:4x8").cost(net(), torch.zeros(1, 3, 8, 8))
    assert table.kind == ("conv2d", "relu", "conv2d", "flatten", "linear")
    assert (table.time_s[[0, 2, 4]] > 0).all() and (table.time_s[[1, 3]] == 0).all()
    parts = sum(table.breakdown.values())
    assert parts == pytest.approx(table.time_s)
    assert table.time_s[2] > table.time_s[0]  # sixteen groups, one after the other


def test_twice_the_clock_is_faster():
    x = torch.zeros(1, 3, 8, 8)
    slow, fast = (VTA(Config(clock_hz=hz)).cost(net(), x).total().time_s for hz in (1e8, 2e8))
    assert fast < slow


def test_what_it_cannot_do():
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ConfigError, match="none of which is a matrix product"):
        VTA().cost(nn.ReLU(), x)
    with pytest.raises(ConfigError, match="asks for 16 bits"):
        VTA().cost(net(), x, policy=Policy({"0": Quantize(weight_bits=16, act_bits=16)}))
    with pytest.raises(ConfigError, match="no VTA core"):
        parse("vta:3x3")
