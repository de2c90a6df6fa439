"""The target: bounds that say so, predictions of what was trained, precisions, energy and explanations."""

import numpy as np
import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize
from netfit.targets import parse
from netfit.targets.gpu import GPU, GPUSpec, KernelPredictor, device, devices
from netfit.targets.gpu._devices import peak
from netfit.testing import TargetContract
from netfit.workload import trace


class TestBounded(TargetContract):
    @pytest.fixture
    def target(self):
        return GPU("h100")


class TestPredicted(TargetContract):
    @pytest.fixture
    def target(self, trained):
        return GPU("a100", time=trained, precision="bf16")


@pytest.fixture
def net():
    layers = nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16 * 16, 256)
    return nn.Sequential(*layers).eval()


X = torch.zeros(8, 3, 16, 16)


def test_without_a_predictor_it_is_a_bound_and_says_so(net):
    target = GPU("h100", launch_overhead_s=2e-6)
    table, workload = target.cost(net, X), trace(net, X)
    assert target.kind == "bounded" and table.source.startswith("lower bound") and "slower" in table.source
    conv, relu, flatten, linear = workload
    spec = device("h100")
    for i, op in enumerate((conv, relu, flatten, linear)):
        moved = (op.act_bytes + op.weight_bytes) / spec.bandwidth["dram"]
        work = 2 * op.macs / spec.flops["fp32"]
        expected = 0 if op.kind == "flatten" else 2e-6 + max(moved, work)
        assert table.time_s[i] == pytest.approx(expected, rel=1e-3)
    assert sum(table.breakdown.values()) == pytest.approx(table.time_s)
    assert (table.lo_s == table.time_s).all() and table.energy_j is None


def test_more_bandwidth_never_slows_and_bits_scale_bytes(net):
    one = device("l4")
    two = GPUSpec(**vars(one) | {"bandwidth": {"dram": 6e11}})
    slow, fast = (GPU(spec).cost(net, X) for spec in (one, two))
    assert (fast.time_s <= slow.time_s).all()
    half = GPU("l4", precision="fp16").cost(net, X)
    assert half.bytes["dram"] == pytest.approx(slow.bytes["dram"] / 2)


def test_a_policy_changes_precision_by_layer(net):
    target, policy = GPU("h100"), Policy({"3": Quantize(weight_bits=8, act_bits=8)})
    before, after = target.cost(trace(net, X)), target.cost(trace(net, X), policy=policy)
    assert after.bytes["dram"][3] == pytest.approx(before.bytes["dram"][3] / 4)
    assert after.time_s[3] < before.time_s[3] and (after.time_s[:3] == before.time_s[:3]).all()
    assert target.cost(net, X, policy=policy).time_s[3] == pytest.approx(after.time_s[3])


def test_a_predictor_predicts_what_it_knows_and_bounds_the_rest(net, trained):
    table = GPU("a100", time=trained, precision="bf16").cost(net, X)
    assert "predicted: a100_sxm, 2 of 3 kernels, 1 bounded" in table.source
    conv, relu, _, linear = range(4)
    assert table.lo_s[conv] < table.time_s[conv] < table.hi_s[conv]
    assert table.lo_s[relu] == table.hi_s[relu]
    bound = GPU("a100", precision="bf16").cost(net, X)
    assert table.time_s[relu] == bound.time_s[relu] and table.time_s[linear] != bound.time_s[linear]
    assert sum(table.breakdown.values()) == pytest.approx(table.time_s)
    full = GPU("a100", time=trained).cost(net, X)  # trained on bf16, the network is fp32
    assert "0 of 3 kernels" in full.source


def test_energy_is_time_by_power(net, trained, db):
    data = db.samples("op")
    watts = KernelPredictor("power", n_estimators=10).fit(data.X, data.power_w, kinds=["gemm:bf16"])
    table = GPU("a100", time=trained, power=watts, precision="bf16").cost(net, X)
    power = table.energy_j[[0, 1, 3]] / table.time_s[[0, 1, 3]]
    assert power[1] == pytest.approx(400)  # nobody measured a ReLU: the board's limit
    assert 200 < power[0] < 400 and 200 < power[2] < 400
    with pytest.raises(ConfigError, match="tdp_w None"):
        GPU(GPUSpec("x", {"bf16": 1e13}, {"dram": 1e11}), power=watts, precision="bf16").cost(net, X)


def test_explanations_name_the_cause(net):
    small = {e.name: e for e in GPU("h100").explain(net, X)}
    assert small["1"].cause == "launch" and sum(small["1"].shares.values()) == pytest.approx(1)
    assert "3" in small and "2.flatten" not in small
    large = GPU("l4").explain(nn.Linear(4096, 4096), torch.zeros(4096, 4096))
    assert large[0].cause == "compute" and "arithmetic" in large[0].text
    assert GPU("l4").explain(nn.Linear(4096, 4096), torch.zeros(1, 4096))[0].cause == "memory"


class Mixed(nn.Module):
    """Attention, a recurrent layer, grouped convolutions."""

    def __init__(self):
        super().__init__()
        self.group = nn.Conv1d(32, 32, 3, padding=1, groups=32)
        self.lstm = nn.LSTM(32, 16, batch_first=True)

    def forward(self, x):
        x = self.group(x.transpose(1, 2)).transpose(1, 2)
        q = x.reshape(2, 10, 4, 8).transpose(1, 2)
        x = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(2, 10, 32)
        return self.lstm(x)[0]


def test_other_kinds_of_layers():
    table = GPU("a100").cost(Mixed().eval(), torch.zeros(2, 10, 32))
    by_kind = dict(zip(table.kind, table.time_s, strict=True))
    assert by_kind["attention"] > 3e-6 and by_kind["conv1d"] > 3e-6
    assert by_kind["lstm"] > 10 * 3e-6  # ten steps wait for each other


def test_names_of_devices():
    for text, key in [
        ("h100", "h100_sxm"), ("H100_PCIE", "h100_pcie"), ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm"), ("NVIDIA A100-PCIE-40GB", "a100_pcie"), ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 3090", "rtx_3090"), ("NVIDIA B200", "b200_sxm"), ("Tesla V100-SXM2-32GB", "v100_sxm"),
        ("NVIDIA L40S", "l40s"), ("NVIDIA L4", "l4"), ("RTX_2080_Ti", "rtx_2080_ti"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000_server"),
    ]:  # fmt: skip
        assert device(text).name == key
    for text in ("RTX 3090 Ti", "RTX 4090 Laptop GPU", "h101", "", "gpu"):
        with pytest.raises(ConfigError, match="no data sheet"):
            device(text)
    with pytest.raises(ConfigError, match="did you mean 'h100'"):
        device("h10")


def test_every_data_sheet_is_complete_and_orders_its_precisions():
    for name in devices():
        spec = device(name)
        assert spec.name == name and spec.memory_bytes > 1e9 and spec.sms > 10 and 50 < spec.tdp_w < 2000
        assert spec.bandwidth["dram"] > 1e11 and spec.l2_bytes >= 2**20
        assert peak(spec, "bf16") >= peak(spec, "fp32") > 1e12


def test_data_sheets_agree_with_the_published_ones(measured):
    """The package of measured tables describes its systems too."""
    import re

    from netfit.targets.gpu import _aiconfigurator

    measured(["h100_sxm"], limit=2)
    folder = _aiconfigurator._folder(None).parent
    for name in set(devices()) & {path.stem for path in folder.glob("*.yaml")}:
        text = (folder / f"{name}.yaml").read_text()
        theirs = {key: float(value) for key, value in re.findall(r"^  (\w+): (\d+)", text, re.M)}
        spec = device(name)
        assert spec.bandwidth["dram"] == pytest.approx(theirs["mem_bw"], rel=0.01), name
        assert spec.flops["bf16"] == pytest.approx(theirs["bfloat16_tc_flops"], rel=0.01), name
        assert spec.tdp_w == theirs["power"] and spec.sm_version == theirs["sm_version"], name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "which GPU"), ("gpu:h100,speed=9", "allowed are precision=, time= and power="),
        ("gpu:h100,precision=bf61", "did you mean 'bf16'"), ("gpu:h100,precision", "allowed are precision="),
        ("gpu:k80,precision=int4", None),
    ],
)  # fmt: skip
def test_targets_by_text(text, message):
    if message is None:
        assert peak(parse(text).spec, "int4") == peak(parse(text).spec, "fp32")  # no unit for it: the next wider one
        return
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_what_cannot_be_costed(net, trained):
    with pytest.raises(ConfigError, match="has no peak for bf16"):
        GPU(GPUSpec("x", {"int4": 1e12}, {"dram": 1e11}), precision="bf16")
    with pytest.raises(ConfigError, match="bandwidth None of dram"):
        GPU(GPUSpec("x", {"fp32": 1e12})).cost(net, X)
    with pytest.raises(ConfigError, match="launch_overhead_s = -1"):
        GPU("h100", launch_overhead_s=-1)
    with pytest.raises(ConfigError, match="predictor of power"):
        GPU("h100", power=trained)
    with pytest.raises(ConfigError, match="a GPU costs a workload"):
        GPU("h100").cost(net)
    with pytest.raises(ConfigError, match="no operator that does work"):
        GPU("h100").cost(nn.Flatten(), torch.zeros(1, 2, 2))
    assert np.isfinite(GPU("h100").cost(net, X).time_s).all()
