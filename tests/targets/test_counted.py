"""Counts as targets: macs, bops and bytes."""

import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize
from netfit.targets import parse
from netfit.testing import TargetContract
from netfit.workload import trace


class TestMacs(TargetContract):
    @pytest.fixture
    def target(self):
        return parse("macs")


class TestBops(TargetContract):
    @pytest.fixture
    def target(self):
        return parse("bops")


class TestBytes(TargetContract):
    @pytest.fixture
    def target(self):
        return parse("bytes")


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)), torch.randn(1, 3, 8, 8)


def total(name, net, x, policy=None):
    return round(float(parse(name).cost(net, x, policy=policy).total().time_s) / 1e-9)


def test_counts_are_those_of_the_workload(net):
    counted = trace(*net).totals()
    assert total("macs", *net) == total("bops", *net) == counted["macs"]
    assert total("bytes", *net) == counted["weight_bytes"]


def test_fewer_bits_count_for_less(net):
    low, bias = Policy({"0": Quantize(), "3": Quantize(4, 8)}), 4 * 18
    conv, linear = 216 * 36, 2880
    assert total("macs", *net, low) == conv + linear
    assert total("bops", *net, low) == pytest.approx(conv / 16 + linear / 32, abs=1)
    assert total("bytes", *net, low) == bias + 216 + 1440


def test_shared_weights_are_stored_once():
    layer = nn.Linear(4, 4)
    assert total("bytes", nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)) == 80


def test_bad_requests(net):
    with pytest.raises(ConfigError, match="target macs takes no argument, not '3'"):
        parse("macs:3")
    with pytest.raises(ConfigError, match="applies a policy to a model"):
        parse("macs").cost(trace(*net), policy=Policy({"0": Quantize()}))
