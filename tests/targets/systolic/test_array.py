"""The target: its contract, groups, precisions, memory, energy and explanations."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize, apply, calibrate
from netfit.targets import SystolicArray
from netfit.targets.systolic import EnergyModel, SystolicConfig, gemm_cost
from netfit.targets.systolic._cost import Products, evaluate
from netfit.testing import TargetContract
from netfit.workload import trace

DATAFLOWS = ("ws", "os", "is")


class TestContract(TargetContract):
    @pytest.fixture(params=["overlapped", "serial", "camuy", "scalesim", "memory"])
    def target(self, request):
        config = SystolicConfig(8, 16)
        if request.param == "serial":
            config = replace(config, weight_load="serial", dataflow="os")
        if request.param == "memory":
            config = replace(config, dram_bytes_per_s=1e9, buffer_bytes=1000, group_mode="block_diagonal")
        return SystolicArray(config, request.param if request.param in ("camuy", "scalesim") else None)


@pytest.mark.parametrize("compat", [None, "camuy", "scalesim"])
@pytest.mark.parametrize("size", [1, 16, 128])
def test_the_breakdown_adds_up_and_rows_are_operators(nets, size, compat):
    array = SystolicArray(SystolicConfig(size, size), compat)
    for workload in nets.values():
        table = array.cost(workload)
        assert len(table) == len(workload)
        short = 1e-2 if compat == "scalesim" and size == 1 else 0  # it is a cycle short of its own stream there
        assert sum(table.breakdown.values()) == pytest.approx(table.time_s, rel=1e-9 + short)
        busy = [bool(op.gemms()) for op in workload]
        assert ((table.time_s > 0) == busy).all()
        macs = np.array([op.macs for op in workload])
        expected = macs[busy] / (table.time_s[busy] * 1e9 * size * size)
        assert table.utilization[busy] == pytest.approx(np.minimum(1.0, expected))


def test_an_operator_of_two_products_costs_both(nets):
    array, workload = SystolicArray(SystolicConfig(8, 8)), nets["attention"]
    at = next(i for i, op in enumerate(workload) if op.kind == "attention")
    products = workload[at].gemms()
    cycles = sum(g.count * int(gemm_cost(g.m, g.n, g.k, array.config).cycles) for g in products)
    assert len(products) == 2
    assert array.cost(workload).time_s[at] == pytest.approx(cycles * 1e-9)


@given(
    st.sampled_from(DATAFLOWS), st.sampled_from(["overlapped", "serial"]), st.integers(1, 40), st.integers(1, 40),
    st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(1, 40),
    st.sampled_from([None, 1e9, 1e10]), st.sampled_from([None, 64, 1000]),
)  # fmt: skip
def test_packed_groups_are_never_slower(dataflow, load, rows, cols, m, n, k, groups, bandwidth, buffer):
    config = SystolicConfig(
        rows, cols, dataflow=dataflow, weight_load=load, dram_bytes_per_s=bandwidth, buffer_bytes=buffer
    )
    products = Products(*(np.array([x]) for x in (m, n, k, 1, groups)))
    serial = evaluate(products, config, None)
    packed = evaluate(products, replace(config, group_mode="block_diagonal"), None)
    # Stalls are rounded up product by product.
    assert packed.cycles[0] <= serial.cycles[0] + (0 if bandwidth is None else groups)
    for words in ("macs", "act_loads", "weight_loads", "result_stores"):
        assert getattr(packed, words)[0] == getattr(serial, words)[0]


def test_depthwise_layers_use_the_array_badly_and_the_reason_is_named(nets):
    config = SystolicConfig(128, 128)
    serial = {e.name: e for e in SystolicArray(config).explain(nets["separable"])}
    depthwise = serial["depthwise"]
    assert depthwise.utilization < 0.02
    assert "16 groups" in depthwise.text
    assert depthwise.cause in ("folds", "fill_drain") and depthwise.shares[depthwise.cause] > 0.5
    assert sum(depthwise.shares.values()) == pytest.approx(1)
    packed = {e.name: e for e in SystolicArray(replace(config, group_mode="block_diagonal")).explain(nets["separable"])}
    assert packed["depthwise"].utilization > 5 * depthwise.utilization


@pytest.mark.parametrize(
    ("config", "shape", "cause", "words"),
    [
        ({}, (10_000, 8, 8), "none", "of the array is used"),
        ({}, (1, 64, 64), "fill_drain", "while only 1 rows stream"),
        ({}, (10_000, 3, 9), "folds", "3 of 8 columns work"),
        ({"weight_load": "serial"}, (5, 64, 640), "load", "weight_load='overlapped'"),
        ({"dram_bytes_per_s": 1e8}, (100, 64, 64), "memory", "waits for 1e+08 bytes/s"),
    ],
)
def test_explanations(config, shape, cause, words):
    m, n, k = shape
    rows, cols = (32, 1) if cause == "load" else (8, 8)
    workload = trace(nn.Linear(k, n, bias=False), torch.zeros(m, k))
    found = SystolicArray(SystolicConfig(rows, cols, **config)).explain(workload)[0]
    assert found.cause == cause
    assert words in found.text and "\n" not in found.text


def test_bytes_scale_exactly_with_bits_and_cycles_do_not_change(nets):
    array, workload = SystolicArray(SystolicConfig(16, 16, weight_bits=16, act_bits=16)), nets["separable"]
    wide, narrow = array.cost(workload), array.cost(workload, policy=Policy({"*": Quantize(8, 8)}))
    for operand in ("weights", "activations", "results"):
        assert (narrow.bytes[operand] * 2 == wide.bytes[operand]).all()
    assert (narrow.bytes["accumulators"] == wide.bytes["accumulators"]).all()
    assert (narrow.time_s == wide.time_s).all()
    assert (narrow.energy_j <= wide.energy_j).all() and narrow.total().energy_j < wide.total().energy_j


def test_bits_come_from_the_policy_of_a_model(separable):
    x, array = torch.randn(1, 3, 12, 12), SystolicArray(SystolicConfig(16, 16))
    policy = Policy({"stem": Quantize(8, 8), "pointwise": Quantize(4, 8)})
    changed = apply(separable, policy, x)
    calibrate(changed, [x])
    from_model, from_policy = array.cost(changed, x), array.cost(separable, x, policy=policy)
    assert from_model.to_json() == from_policy.to_json() == array.cost(trace(separable, x), policy=policy).to_json()
    plain = array.cost(separable, x)
    ratio = dict(zip(plain.names, from_model.bytes["weights"] / np.maximum(1, plain.bytes["weights"]), strict=True))
    assert (ratio["stem"], ratio["pointwise"], ratio["fc"]) == (1.0, 0.5, 1.0)


def test_bfloat16_needs_wide_multipliers(separable):
    x, policy = torch.zeros(1, 3, 12, 12), Policy({"fc": Quantize(16, 16)})
    with pytest.raises(ConfigError, match="fc asks for weight_bits = 16; allowed on this array are 1 to 8"):
        SystolicArray(SystolicConfig(8, 8)).cost(separable, x, policy=policy)
    wide = SystolicArray(SystolicConfig(8, 8, weight_bits=32, act_bits=32))
    halved = wide.cost(separable, x, policy=policy).bytes["weights"] / wide.cost(separable, x).bytes["weights"].clip(1)
    assert halved[-1] == 0.5 and halved[0] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda net: ("resnet20",), "not a str with 0 inputs"),
        (lambda net: (net,), "not a Separable with 0 inputs"),
        (lambda net: (nn.ReLU(), torch.zeros(1, 3)), "none of which is a matrix product"),
        (lambda net: (nn.Linear(3, 2), torch.zeros(0, 3)), "has size 0"),
    ],
)
def test_what_cannot_be_costed(separable, given, message):
    with pytest.raises(ConfigError, match=message):
        SystolicArray(SystolicConfig(4, 4)).cost(*given(separable))


def test_a_workload_cannot_be_pruned(nets):
    from netfit.compress import Prune

    with pytest.raises(ConfigError, match="cannot be changed by 'prune': give cost\\(\\) the model"):
        SystolicArray(SystolicConfig(4, 4)).cost(nets["separable"], policy=Policy({"stem": Prune(keep=4)}))


def brute_memory(m, n, k, config):
    """Pass by pass, as the sheet defines it: bytes, and cycles waited."""
    a, w, speed = config.act_bits / 8, config.weight_bits / 8, config.dram_bytes_per_s / config.clock_hz
    if config.dataflow == "is":
        m, n, a, w = n, m, w, a
    results = config.act_bits / 8
    limit = math.inf if config.buffer_bytes is None else config.buffer_bytes
    keep_stream = m * k * a <= limit
    keep_tiles = n * k * w + keep_stream * m * k * a <= limit
    serial = 2 * config.rows + config.cols - 2 if config.weight_load == "serial" else 0
    moved = stall = 0.0
    if config.dataflow == "os":
        for i, j in itertools.product(range(0, m, config.rows), range(0, n, config.cols)):
            h, v = min(config.rows, m - i), min(config.cols, n - j)
            part = h * k * a * (j == 0 or not keep_stream) + v * k * w * (i == 0 or not keep_tiles) + h * v * results
            moved, busy = moved + part, k + serial if serial else max(k, config.rows)
            stall += max(0.0, part / speed - busy)
        return moved, math.ceil(stall)
    block = config.accum_rows // 2
    for i, j, d in itertools.product(range(0, m, block), range(0, n, config.cols), range(0, k, config.rows)):
        r, v, h = min(block, m - i), min(config.cols, n - j), min(config.rows, k - d)
        part = r * h * a * (j == 0 or not keep_stream) + h * v * w * (i == 0 or not keep_tiles)
        part += r * v * results * (d + config.rows >= k)
        moved, stall = moved + part, stall + max(0.0, part / speed - r - serial)
    return moved, math.ceil(stall)


@given(
    st.builds(
        SystolicConfig, rows=st.integers(1, 9), cols=st.integers(1, 9), accum_rows=st.integers(2, 20),
        dataflow=st.sampled_from(DATAFLOWS), weight_load=st.sampled_from(["overlapped", "serial"]),
        weight_bits=st.sampled_from([8, 16]), buffer_bytes=st.sampled_from([None, 16, 200, 500]),
        dram_bytes_per_s=st.sampled_from([2.0**28, 2.0**30, 2.0**33]), clock_hz=st.just(2.0**30),
    ),
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 30),
)  # fmt: skip
def test_memory_stalls_are_those_of_every_pass(config, m, n, k):
    cost = gemm_cost(m, n, k, config)
    assert (float(cost.dram_bytes), int(cost.stall_cycles)) == brute_memory(m, n, k, config)
    free = gemm_cost(m, n, k, replace(config, dram_bytes_per_s=None))
    assert cost.cycles == free.cycles + cost.stall_cycles
    faster = gemm_cost(m, n, k, replace(config, dram_bytes_per_s=2 * config.dram_bytes_per_s))
    assert faster.cycles <= cost.cycles


def test_energy_is_the_weighed_sum_of_moved_bytes():
    config = SystolicConfig(4, 4, weight_bits=4, energy=EnergyModel(3, 5, 7, 11, joules=2.0))
    cost = gemm_cost(9, 10, 11, config)
    buffer = cost.act_loads + cost.weight_loads / 2 + cost.result_stores
    hops = cost.act_hops + cost.weight_hops / 2 + cost.sum_hops * 4
    registers = cost.pe_steps * (1 + 0.5 + 4)
    expected = 2.0 * (3 * buffer + 5 * hops + 7 * 4 * cost.accum_writes + 11 * registers)
    assert float(cost.energy_j) == pytest.approx(float(expected), rel=1e-12)


def test_repeated_calls_of_one_layer_are_told_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.fc(x))

    table = SystolicArray(SystolicConfig(4, 4)).cost(Twice(), torch.zeros(2, 8))
    assert table.names == ("fc", "fc#1")


def test_it_can_be_what_a_compression_aims_at():
    from netfit.compress import Prune
    from netfit.compress._cost import meter

    x = torch.randn(1, 3, 12, 12)
    convs = nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()
    net = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()
    judge = meter(SystolicArray(SystolicConfig(16, 16)), net, (x,))
    assert judge.cost(net).ratio == 1
    small = apply(net, Policy({"0": [Prune(keep=16), Quantize()], "2": Quantize()}), x)
    calibrate(small, [x])
    assert 0.4 < judge.cost(small).ratio < 0.6  # the first layer's columns and the second's rows are halved
    assert judge.describe()["runtime"] == "systolic"
