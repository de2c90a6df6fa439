"""Bounds and explanations on a processor of round numbers; real kernels through the whole chain."""

import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.kernels import toolchain
from netfit.kernels.dense import ConvShape, Prepared
from netfit.targets import Measurement, Timing
from netfit.targets.roofline import Nest, Operand, Work, _layers, blocked, bounds, explain, explain_layers, least, plain
from netfit.workload import trace

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler here")


def stream(size):
    return Nest({"i": size}, (Operand("x", ((("i", 1),),), 1),))


def test_every_bound_by_hand(peaks):
    work = Work("fp32", "vector", operations=128e6, loads=4e6, nests=(stream(1e9),), chain=1e6)
    found = bounds(work, peaks)
    assert found["compute"] == pytest.approx(1e-3)
    assert found["latency"] == pytest.approx(1e-3)
    assert found["l1"] == pytest.approx(4e6 * 64 / 256e9)
    assert found["l2"] == pytest.approx(1e9 / 64e9, rel=1e-4)
    assert found["dram"] == pytest.approx(1e9 / 8e9, rel=0.05)


@pytest.mark.parametrize(
    ("work", "bound"),
    [
        (Work("fp32", "vector", 1e9, 1, (stream(1e3),)), "compute"),
        (Work("int8", "vector", 1e6, 1e9, (stream(1e3),)), "l1"),
        (Work("fp32", "scalar", 1e6, 1, (stream(1e3),), chain=1e9), "latency"),
        (Work("fp32", "vector", 1e5, 1, (stream(512e3),)), "l2"),
        (Work("fp32", "vector", 1e6, 1, (stream(1e10),)), "dram"),
    ],
)
def test_the_named_bound_is_the_longest(work, bound, peaks):
    seconds = bounds(work, peaks)[bound]
    found = explain("it", work, 1.25 * seconds, peaks)
    assert found.bound == bound and found.share == pytest.approx(0.8) and found.predicted_s == seconds
    assert found.text.startswith("80% of the time is the bound of ") and "not explained" not in found.text
    assert "70% is not explained by any bound" in explain("it", work, seconds / 0.3, peaks).text


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none(seconds, peaks):
    with pytest.raises(ConfigError, match="a time is positive"):
        explain("it", least(ConvShape.gemm(8, 8, 8), "fp32", 16), seconds, peaks)


def test_a_unit_has_its_own_peak(peaks):
    work = Work("int8", "vector", 512e6, 0, ())
    assert bounds(work, peaks)["compute"] == pytest.approx(1e-3)
    assert bounds(least(ConvShape.gemm(640, 640, 640), "int8", 16), peaks)["compute"] == pytest.approx(
        2 * 640**3 / 4096e9
    )


@needs_cc
@pytest.mark.parametrize("precision", ["fp32", "int8", "bits"])
def test_our_nests_do_no_less_than_any(precision, peaks):
    """Padding, packing and passing over blocks only add to what has to be done."""
    for shape in (ConvShape(20, 40, 13, 29, 3, 3, padding=1), ConvShape.gemm(64, 3136, 576), ConvShape(8, 64, 8, 8)):
        weight = torch.ones(shape.rows, shape.channels, shape.taps_h, shape.taps_w)
        kernel = Prepared(shape, weight if precision == "fp32" else weight.to(torch.int8), precision=precision)
        ours, any_ = blocked(kernel), least(shape, precision, 16)
        assert ours.operations >= any_.operations and ours.loads >= any_.loads
        assert bounds(ours, peaks)["compute"] >= any_.operations / peaks.ops[precision]["vector"]


def test_a_plain_nest_waits_for_its_sums(peaks):
    shape = ConvShape.gemm(128, 128, 256)
    found = bounds(plain(shape, "fp32", 16), peaks)
    assert max(found, key=lambda key: found[key]) == "latency"
    assert found["latency"] == pytest.approx(shape.macs * (1 - 64 / 256) * 1e-9)
    assert "latency" not in bounds(plain(shape, "int8", 16), peaks)
    padded, inside = ConvShape(1, 1, 4, 4, 3, 3, padding=1), ConvShape(1, 1, 6, 6, 3, 3)
    assert [plain(s, "fp32", 16).operations for s in (padded, inside)] == pytest.approx([2 * 100, 2 * 144])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.twin = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, groups=8)
        self.uneven = nn.Conv2d(8, 8, 3, stride=(1, 2))
        self.fc = nn.Linear(8, 20)

    def forward(self, x):
        x = self.uneven(self.grouped(self.twin(self.b(self.a(x)))))
        return self.fc(x.mean((2, 3)))


def called_once(candidates, *, yardstick, budget_s, seed):
    """`measure` without a clock: every candidate runs and takes a millisecond."""
    assert yardstick in candidates and budget_s > 0
    for call in candidates.values():
        call()
    timing = Timing(1e-3, 1e-3, 1e-3, 1.0, 1.0, 1.0, 1, noisy=False)
    return Measurement(yardstick, 1, 1, 0, dict.fromkeys(candidates, timing))


@needs_cc
def test_layers_of_a_network_in_every_implementation(peaks, monkeypatch):
    monkeypatch.setattr(_layers, "measure", called_once)
    workload = trace(Net().eval(), torch.zeros(1, 3, 12, 12))
    found = list(explain_layers(workload, peaks, budget_s=1.0))
    keys = {(x.name, x.product, x.implementation, x.precision) for x in found}
    assert {x.name for x in found} == {"a", "b", "fc"}  # the twin is timed once, the others have no kernel
    assert ("a", "conv", "torch", "fp32") in keys and ("a", "conv", "torch", "int8") not in keys
    assert ("fc", "gemm", "torch", "int8") in keys and ("fc", "gemm", "netfit", "bits") in keys
    assert len(keys) == len(found) == 3 * 6 + 3 + 1
    assert all(x.explanation.measured_s > 0 and x.explanation.predicted_s > 0 for x in found)
    products = list(explain_layers(workload, peaks, as_gemm=True, precisions=("fp32",)))
    assert {x.product for x in products} == {"gemm"}
    assert products[0].shape == ConvShape.gemm(8, 144, 27)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"precisions": ("fp16",)}, "precision 'fp16'; "),
        ({"implementations": ("troch",)}, "implementation 'troch'; did you mean 'torch'"),
        ({}, "none of the 1 operators is a convolution without groups or a linear layer"),
    ],
)
def test_bad_questions(more, message, peaks):
    workload = trace(nn.ReLU(), torch.zeros(1, 3))
    with pytest.raises(ConfigError, match=message):
        list(explain_layers(workload, peaks, **more))
