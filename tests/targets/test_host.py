"""The host target with real runtimes; what is asserted never depends on how fast the machine is."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from netfit.deploy import open_session
from netfit.errors import ConfigError, TargetError, TargetUnavailable
from netfit.kernels import toolchain
from netfit.targets import HostCPU, _host, fastest_runtime, measure
from netfit.targets._bits import bits_that_pay
from netfit.targets._measure import Measurement, Timing
from netfit.targets._profile import spread
from netfit.workload import trace

X = torch.randn(1, 3, 16, 16)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the candidates of every measurement that was really made; results are never noisy."""
    made: list[list[str]] = []

    def counted(calls, **settings):
        made.append(list(calls))
        found = measure(calls, **{**settings, "budget_s": 0.02})
        for t in found.timings.values():
            object.__setattr__(t, "noisy", False)
        return found

    monkeypatch.setattr(_host, "measure", counted)
    return made


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime", "torch"])
def test_cost_is_a_table_of_call_sites(runtime: str, tiny: nn.Module, tmp_path: Path) -> None:
    tiny.train()
    before = torch.get_num_threads()
    table = HostCPU(runtime, cache=tmp_path, budget_s=0.05).cost(tiny, X)
    assert {"conv", "again", "fc"} <= set(table.names)
    assert table.group("kind:conv2d").names == ("conv", "again")
    assert (table.lo_s <= table.time_s).all()
    assert (table.time_s <= table.hi_s).all()
    assert table.total().time_s > 0
    assert f"measured: {runtime}" in table.source
    assert tiny.training
    assert torch.get_num_threads() == before


def test_cost_is_kept_by_content_and_input_shape(files: dict[str, Path], tmp_path: Path, count: list) -> None:
    host = HostCPU("onnxruntime", cache=tmp_path)
    first = host.file_cost(files["w8"])
    assert host.file_cost(files["w8"]).to_json() == first.to_json()
    assert len(count) == 1
    host.file_cost(files["w16"])
    host.file_cost(files["w8"], np.zeros((2, 3, 16, 16), np.float32))
    HostCPU("openvino", cache=tmp_path).file_cost(files["w8"])
    assert len(count) == 4
    for kept in tmp_path.iterdir():  # a damaged entry counts as absent
        kept.write_text("{")
    host.file_cost(files["w8"])
    assert len(count) == 5


def test_noisy_results_are_flagged_and_not_kept(files: dict[str, Path], tmp_path: Path) -> None:
    host = HostCPU("onnxruntime", cache=tmp_path, budget_s=1e-6)  # one round says nothing
    assert host.file_cost(files["w8"]).source.endswith("noisy")
    assert host.latency(files, "w8").noisy
    assert not list(tmp_path.iterdir())


def test_latency_measures_only_what_is_new(files: dict[str, Path], tmp_path: Path, count: list) -> None:
    host = HostCPU("onnxruntime", cache=tmp_path)
    found = host.latency({"base": files["w16"], "small": files["w8"]}, "base")
    assert found.timings["base"].ratio == 1.0
    again = host.latency({"same": files["w8"], "base": files["w16"]}, "base")
    assert again.timings["same"] == found.timings["small"]
    assert list(again.timings) == ["same", "base"]
    assert len(count) == 1
    host.latency({"base": files["w16"], "small": files["w8"]}, "small")  # another yardstick
    HostCPU("openvino", cache=tmp_path).latency({"base": files["w16"], "small": files["w8"]}, "base")
    assert len(count) == 3


def test_latency_of_sessions_compares_runtimes(files: dict[str, Path], tmp_path: Path) -> None:
    sessions = {name: open_session(files["w8"], name) for name in ("openvino", "onnxruntime")}
    found = HostCPU(cache=tmp_path, budget_s=0.05).latency(sessions, "openvino", np.zeros((2, 3, 16, 16), np.float32))
    assert set(found.timings) == {"openvino", "onnxruntime"}
    assert not list(tmp_path.iterdir())


def test_fastest_runtime_is_found_once(files: dict[str, Path], tmp_path: Path, count: list) -> None:
    assert fastest_runtime(files["w8"], budget_s=0.05) in ("openvino", "onnxruntime")
    count.clear()
    host = HostCPU("fastest", cache=tmp_path)
    table = host.file_cost(files["w8"])
    assert table.source.split()[1] in ("openvino", "onnxruntime")
    assert count == [["openvino", "onnxruntime"], ["net"]]
    host.file_cost(files["w8"])
    assert len(count) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_peak_memory_sees_the_weights(tmp_path: Path) -> None:
    from netfit.deploy import export

    big = export(nn.Sequential(nn.Flatten(), nn.Linear(768, 8192)).eval(), (X,), tmp_path / "big.onnx").path
    host = HostCPU("onnxruntime", cache=tmp_path / "kept")
    found = host.peak_memory(big)
    assert found.added_bytes == found.peak_bytes - found.baseline_bytes
    assert found.added_bytes > 768 * 8192 * 4
    assert found.baseline_bytes > 10 << 20
    assert host.peak_memory(big) == found
    assert host.peak_memory(big, X.numpy()).peak_bytes > found.baseline_bytes


def test_peak_memory_of_a_bad_file_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a network")
    with pytest.raises(TargetError, match=r"bad\.onnx") as e:
        HostCPU("onnxruntime", cache=tmp_path / "kept").peak_memory(bad)
    assert "\n" not in str(e.value)


def test_peak_memory_needs_linux(tmp_path: Path, files: dict[str, Path], monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(TargetUnavailable, match="darwin"):
        HostCPU("onnxruntime", cache=tmp_path).peak_memory(files["w8"])


def test_spread_hands_out_all_of_the_time() -> None:
    timing = Timing(1.0, 0.9, 1.2, 1.0, 1.0, 1.0, 50, noisy=False)
    table = spread(timing, [("a", "conv", 1e-3), ("b", "add", 0.0), ("a", "conv", 2e-3)], "measured: x")
    assert table.names == ("a", "b")
    np.testing.assert_allclose(table.time_s, [1.0, 0.0])
    assert (float(table.total().lo_s), float(table.total().hi_s)) == (0.9, 1.2)
    assert spread(timing, [("a", "conv", 0.0)], "x").names == ("network",)


def test_precisions_follow_runtime_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[str] = []
    facts = {"cpu": "x", "cpu_flags": flags, "packages": {"openvino": "1", "onnxruntime": "1", "torch": "1"}}
    monkeypatch.setattr(_host.env, "fingerprint", lambda: facts)
    assert HostCPU().precisions("conv2d") == ("fp32", "int8")
    assert HostCPU().channel_step == 8
    flags += ["avx512f", "avx512_bf16"]
    assert HostCPU().precisions("conv2d") == ("fp32", "bf16", "int8")
    assert HostCPU("onnxruntime").precisions("conv2d") == ("fp32", "int8")
    assert HostCPU().precisions("softmax") == ("fp32",)
    assert HostCPU("torch").precisions("conv2d") == ("fp32",)
    assert HostCPU().channel_step == 16
    assert HostCPU().fingerprint() != HostCPU("onnxruntime").fingerprint()


def test_bad_arguments_are_named(tiny: nn.Module, files: dict[str, Path], tmp_path: Path) -> None:
    host = HostCPU(cache=tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        HostCPU("openvin")
    with pytest.raises(ConfigError, match="threads=0"):
        HostCPU(threads=0)
    with pytest.raises(ConfigError, match="not a Workload with 1 inputs"):
        host.cost(trace(tiny, X), X)
    with pytest.raises(ConfigError, match="not a Tiny with 0 inputs"):
        host.cost(tiny)
    with pytest.raises(ConfigError, match=r"no network 'bse'.*did you mean 'base'"):
        host.latency({"base": files["w8"]}, "bse")
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.onnx"):
        host.latency({"base": tmp_path / "gone.onnx"}, "base")
    with pytest.raises(ConfigError, match="torch runs models and not files"):
        HostCPU("torch", cache=tmp_path).latency({"base": files["w8"]}, "base")


def test_a_policy_is_measured_as_it_runs(tiny: nn.Module, tmp_path: Path) -> None:
    from netfit.surgery import Policy, Quantize

    policy = Policy({"kind:conv2d": [Quantize(weight_bits=8, act_bits=8)]})
    table = HostCPU("openvino", cache=tmp_path, budget_s=0.05).cost(tiny, X, policy=policy)
    assert {"conv", "again"} <= set(table.names)
    with pytest.raises(ConfigError, match="only simulates"):
        HostCPU("torch", cache=tmp_path).cost(tiny, X, policy=policy)


def test_1_bit_precisions_are_offered_where_they_were_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def paying(op, timed, threads):
        made.append(op.name)
        return (("w1a2", "w1a1") if op.inputs[0].shape[2] == 4 else ()), False

    monkeypatch.setattr(_host, "bits_that_pay", paying)
    layers = [nn.Conv2d(128, 128, 3, stride=2, padding=1), nn.Conv2d(128, 64, 3), nn.Conv2d(64, 64, 1)]
    ops = trace(nn.Sequential(*layers), torch.zeros(2, 128, 8, 8))
    host = HostCPU(cache=tmp_path)
    known = host.precisions("conv2d")
    if toolchain("c++") is not None:
        assert [host.offered(op) for op in ops] == [known, (*known, "w1a2", "w1a1"), known]
        assert made == ["0", "1"]  # 64 channels are too few to try
        assert HostCPU(cache=tmp_path).offered(ops[1])[-1] == "w1a1" and len(made) == 2  # kept
    assert HostCPU("onnxruntime", cache=tmp_path).offered(ops[1]) == ("fp32", "int8")
    monkeypatch.setenv("NETFIT_CXX", "none")
    assert HostCPU(cache=tmp_path).offered(ops[1]) == known


@pytest.mark.slow
@pytest.mark.skipif(toolchain("c++") is None, reason="no C++ compiler here")
def test_what_pays_is_measured_between_int8_layers() -> None:
    (op,) = trace(nn.Conv2d(128, 128, 3, padding=1), torch.zeros(1, 128, 4, 4))
    for factor, paying in ((0.5, ("w1a2", "w1a1")), (1.0, ())):

        def timed(sessions, factor=factor):
            assert [e.precision for s in sessions.values() for e in s.layers() if e.name == "2"] == list(sessions)
            time = Timing(1.0, 1.0, 1.0, factor, factor, factor, 50, noisy=False)
            return Measurement("int8", 1, 8, 0, dict.fromkeys(sessions, time))

        assert bits_that_pay(op, timed, 1) == (paying, False)
