import numpy as np
import pytest
import torch

from netfit.deploy import Substituted, export, fidelity, open_session, to_onnx, verify
from netfit.deploy._sessions import precision_marks
from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize, apply, calibrate, sites

KINDS = ("conv2d", "linear")


def _layers(net):
    return list(dict.fromkeys(s.name for s in sites(net.model, net.example) if s.kind in KINDS))


def _applied(net, policy):
    model = apply(net.model, Policy(policy), net.example)
    calibrate(model, [net.x])
    return model


@pytest.mark.parametrize(
    ("name", "runtime", "ending"),
    [("residual", "openvino", ".xml"), ("residual", "onnxruntime", ".onnx"), ("concat", "openvino", ".onnx")],
)
def test_an_exported_file_is_the_model(nets, tmp_path, name, runtime, ending):
    net = nets(name)
    model = _applied(net, {layer: Quantize() for layer in _layers(net)})
    exported = export(model, (net.example,), tmp_path / f"net{ending}", runtime=runtime)
    assert exported.report["bytes"] > 1000
    assert exported.report["layers"] == {"int8": len(exported.asked)}
    assert set(_layers(net)) <= exported.asked.keys()
    found = verify(exported, model, net.x)
    assert found.substituted == ()
    assert found.agreement >= 0.95 and found.max_abs_diff < 0.05 * np.abs(net.reference()).max()
    assert fidelity(exported) == []


def test_an_unquantized_file_equals_the_model(nets, tmp_path):
    net = nets("residual")
    exported = export(net.model, (net.example,), tmp_path / "net.onnx", runtime="onnxruntime")
    found = verify(exported, net.model, net.x)
    assert found.agreement == 1.0 and found.max_abs_diff < 1e-4 and not found.substituted


@pytest.mark.parametrize("name", ["residual", "concat"])
def test_random_policies_run_as_asked(nets, name):
    net = nets(name)
    rng = np.random.default_rng(0)
    for _ in range(5):
        model = _applied(
            net, {layer: Quantize() for layer in _layers(net) if rng.random() < 0.6} or {"fc*": Quantize()}
        )
        proto = net.probe.onnx(model)
        for runtime in ("openvino", "onnxruntime"):
            executed = {n: e.precision for e in open_session(proto, runtime).layers() for n in (e.name, *e.fused)}
            asked = precision_marks(proto)
            assert {n: executed.get(n) for n in asked} == asked


def test_what_a_runtime_cannot_do_is_recorded(nets, tmp_path):
    net = nets("residual")
    model = _applied(net, {"stem": Quantize(4, 8), "block1.*": Quantize(16, 16)})
    exported = export(model, (net.example,), tmp_path / "net.onnx", runtime="openvino")
    assert Substituted("stem", "w4a8", "int8") in fidelity(exported)
    assert not any(s.name.startswith("block1") for s in fidelity(exported))
    found = verify(exported, model, net.x, "onnxruntime")
    assert set(found.substituted) == {
        Substituted("stem", "w4a8", "int8"),
        Substituted("block1.conv1", "bf16", "fp32"),
        Substituted("block1.conv2", "bf16", "fp32"),
    }


@pytest.mark.parametrize("weight_bits", [1, 4])
def test_low_bit_weights_are_exact(nets, tmp_path, weight_bits):
    net = nets("repeated")
    model = _applied(net, {"conv": Quantize(weight_bits, 8)})
    found = verify(export(model, (net.example,), tmp_path / "net.onnx", runtime="onnxruntime"), model, net.x)
    assert found.max_abs_diff < 0.02 * float(model(net.x).detach().abs().max())


def test_bad_input_is_one_line(nets, tmp_path):
    net = nets("repeated")
    model = apply(net.model, Policy({"conv": Quantize()}), net.example)
    with pytest.raises(ConfigError, match="not calibrated"):
        export(model, (net.example,), tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"must end in \.onnx for onnxruntime"):
        export(net.model, (net.example,), tmp_path / "net.xml", runtime="onnxruntime")
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        export(net.model, (net.example,), tmp_path / "net.onnx", runtime="opnvino")
    executed = open_session(to_onnx(model, (net.example,)), "onnxruntime").layers()  # placeholders still run as asked
    assert {e.name: e.precision for e in executed}["conv"] == "int8"


def test_verify_keeps_the_training_flag(nets, tmp_path):
    net = nets("repeated")
    exported = export(net.model, (net.example,), tmp_path / "net.onnx")
    net.model.bn.train()
    try:
        statistics = net.model.bn.running_mean.clone()
        verify(exported, net.model, net.x)
        assert net.model.bn.training and torch.equal(statistics, net.model.bn.running_mean)
    finally:
        net.model.eval()
