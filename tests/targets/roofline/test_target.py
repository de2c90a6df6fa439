"""`Roofline` keeps the contract of a target and never claims more than the peaks."""

import pytest
import torch
from torch import nn

import netfit as nf
from netfit.errors import ConfigError
from netfit.kernels import toolchain
from netfit.pipeline import StageCosts
from netfit.targets import parse
from netfit.targets.roofline import Roofline
from netfit.testing import TargetContract
from netfit.workload import Workload, trace


class TestRoofline(TargetContract):
    @pytest.fixture
    def target(self, peaks):
        return Roofline(peaks)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 14 * 14, 256)
    return nn.Sequential(*layers).eval()


X = torch.zeros(1, 64, 14, 14)


def test_rows_by_hand(net, peaks):
    table = Roofline(peaks).cost(net, X)
    conv, relu, flatten, fc = table.time_s
    assert conv == pytest.approx(2 * 64 * 64 * 9 * 196 / 128e9)  # arithmetic
    assert flatten == 0
    act = 64 * 196 * 4
    assert relu == pytest.approx((1 - (32 << 10) / (2 * act)) * act * (1 / 64e9 + 1 / 32e9))  # L1 keeps some of both
    weights = 64 * 196 * 256 * 4
    whole = weights + 64 * 64 * 9 * 4 + 2 * act + 256 * 4 + 64 * 4
    share = 1 - (4 << 20) / whole  # what the last cache cannot keep until the next inference
    assert fc == pytest.approx(max(weights * share / 8e9, weights * (1 - (1 << 20) / whole) / 16e9), rel=1e-2)
    assert table.utilization[0] == 1 and table.utilization[3] < 0.2
    assert (table.hi_s >= table.time_s).all() and (table.lo_s == table.time_s).all()
    assert sum(table.breakdown.values()) == pytest.approx(table.time_s)


def test_fewer_bits_take_less(net, peaks):
    target = Roofline(peaks)
    times = []
    for policy in ({}, {"0": nf.Quantize(16, 16)}, {"0": nf.Quantize(8, 8)}, {"0": nf.Quantize.of("w1a1")}):
        times.append(float(target.cost(trace(net, X), policy=nf.Policy(policy)).time_s[0]))
    fp32, bf16, int8, bits = times
    assert bf16 == pytest.approx(fp32 / 2) and int8 < bf16 and bits <= int8
    pruned = target.cost(net, X, policy=nf.Policy({"0": nf.Prune(sparsity=0.5)}))
    assert float(pruned.time_s[0]) < fp32


def test_doubling_a_bandwidth_never_slows_anything(net, peaks):
    from dataclasses import replace

    before = Roofline(peaks).cost(net, X).time_s
    for level in peaks.read:
        faster = replace(
            peaks,
            read={**peaks.read, level: 2 * peaks.read[level]},
            write={**peaks.write, level: 2 * peaks.write[level]},
        )
        assert (Roofline(faster).cost(net, X).time_s <= before).all()


def test_it_describes_itself(peaks):
    target = Roofline(peaks)
    assert target.precisions("conv2d") == ("fp32", "bf16", "int8") and target.precisions("relu") == ("fp32",)
    assert target.channel_step == 16 and target.spec.name == "round numbers"
    assert target.spec.flops["int8"] == 4096e9 and target.spec.bandwidth["dram"] == 8e9


def test_stages_of_a_pipeline(net, peaks):
    costs = StageCosts.from_target(trace(net, X), Roofline(peaks), stages=2)
    assert len(costs) == 2 and (costs.t_f > 0).all()


def test_names_and_bad_input(peaks):
    assert isinstance(parse("roofline"), Roofline) and nf.Roofline is Roofline
    with pytest.raises(ConfigError, match="takes no argument, not '128'"):
        parse("roofline:128")
    with pytest.raises(ConfigError, match="a roofline costs a workload, or a torch module with its example inputs"):
        Roofline(peaks).cost("resnet18")
    with pytest.raises(ConfigError, match="has no operators"):
        Roofline(peaks).cost(Workload([], [], []))


@pytest.mark.skipif(toolchain() is None, reason="no C compiler here")
def test_compress_searches_against_it(peaks):
    from netfit.compress._cost import meter

    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.zeros(1, 3, 8, 8)
    assert meter(Roofline(peaks), net, (x,)).cost(net).ratio == 1
