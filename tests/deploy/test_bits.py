"""1-bit layers: exact, equal to the network that is trained, read back, and refused where they cannot run."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.deploy import Exported, Grid, QuantSpec, export, fidelity, open_session, quantize, to_onnx, verify
from netfit.deploy import _extension as extension
from netfit.deploy._bits import thresholds
from netfit.deploy._sessions import precision_marks
from netfit.errors import ConfigError, TargetError, TargetUnavailable, UnsupportedLayerError
from netfit.kernels import toolchain
from netfit.quant import fake_quantize
from netfit.surgery import Policy, Quantization, Quantize, apply, calibrate, load, save

needs_cxx = pytest.mark.skipif(toolchain("c++") is None, reason="no C++ compiler here")
BITS = {"w1a1", "w1a2"}


def _conv(weight, bias, x, pads, strides, dilations):
    """One convolution as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "c", pads=pads, strides=strides, dilations=dilations)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph([node], "conv", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@needs_cxx
@pytest.mark.parametrize("shapes", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_equals_integers_on_random_shapes(shapes):
    rng = np.random.default_rng(shapes)
    for _ in range(shapes):
        kernel, strides, dilations = rng.integers(1, 5, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
        pads, reach = rng.integers(0, 4, 4), dilations * (kernel - 1) + 1
        n, channels, outputs = rng.integers(1, 3), rng.integers(1, 200), rng.integers(1, 40)
        height, width = (int(rng.integers(max(1, reach[i] - pads[i] - pads[i + 2]), 24)) for i in (0, 1))
        levels = int(rng.choice([2, 4]))
        grid = Grid(1.0, int(rng.integers(0, levels)), levels)
        x = rng.normal(scale=2, size=(n, channels, height, width)).astype(np.float32)
        weight = rng.choice([-1.0, 1.0], size=(outputs, channels, *kernel)).astype(np.float32)
        bias = rng.integers(-9, 9, outputs).astype(np.float32)
        model = _conv(weight, bias, x, pads.tolist(), strides.tolist(), dilations.tolist())
        found = open_session(quantize(model, QuantSpec(bits={"c": grid}))).run(x)[0]
        codes = np.clip(np.rint(x), -grid.zero_point, levels - 1 - grid.zero_point).astype(np.int64)
        padded = F.pad(torch.from_numpy(codes), (int(pads[1]), int(pads[3]), int(pads[0]), int(pads[2])))
        sums = F.conv2d(
            padded.double(), torch.from_numpy(weight).double(), torch.from_numpy(bias).double(),
            stride=strides.tolist(), dilation=dilations.tolist(),
        )  # fmt: skip
        assert np.array_equal(found, sums.numpy()), (x.shape, weight.shape, pads, strides, dilations, grid)


@given(st.floats(2.0**-20, 2.0**20, width=32), st.integers(0, 3), st.lists(st.floats(-4, 4, width=32), min_size=1))
def test_comparing_gives_the_codes_of_the_quantizer(scale, zero_point, values):
    limits = thresholds(Grid(scale, zero_point, 4))
    ties = np.array([(k + 0.5) * scale for k in range(-4, 4)], np.float32)
    near = np.concatenate([ties, np.nextafter(ties, np.float32(-np.inf)), np.nextafter(ties, np.float32(np.inf))])
    x = np.concatenate([near, limits, np.array(values, np.float32) * np.float32(scale)])
    rounded = fake_quantize(torch.from_numpy(x), torch.tensor(scale), torch.tensor(zero_point), 0, 3)
    codes = (x[:, None] >= limits).sum(1)
    assert np.array_equal((codes - zero_point).astype(np.float32) * np.float32(scale), rounded.numpy())


def _low(net, chosen):
    """The network with a policy, and calibrated."""
    low = apply(net.model, Policy({name: Quantize.of(p) for name, p in chosen.items()}), net.example)
    calibrate(low, net.x.split(16))
    return low.eval()


@needs_cxx
@pytest.mark.parametrize(("precision", "ending"), [("w1a1", "onnx"), ("w1a2", "xml")])
def test_the_file_computes_what_the_network_computes(nets, tmp_path, precision, ending):
    net = nets("residual")
    low = _low(net, {"block1.conv1": "w1a2", "block1.conv2": precision})  # one with a ReLU behind it, one without
    exported = export(low, [net.example], tmp_path / f"net.{ending}")
    assert exported.asked["block1.conv2"] == precision and exported.asked["block1.conv1"] == "w1a2"
    found = verify(exported, low, net.x)
    assert found.substituted == () and found.agreement == 1.0 and found.max_abs_diff < 1e-4
    with torch.no_grad():
        assert (low(net.x) - net.model(net.x)).abs().max() > 0.01  # it did round


@needs_cxx
def test_beside_int8_and_bfloat16_layers_and_called_several_times(nets, tmp_path):
    net = nets("residual")
    for others in ("int8", "bf16"):
        low = _low(net, {"stem": others, "block1.conv1": others, "block1.conv2": "w1a1", "block2.conv1": "w1a2"})
        found = verify(export(low, [net.example], tmp_path / "net.onnx"), low, net.x)
        assert found.agreement > 0.9
        # Beside bfloat16 layers OpenVINO also runs pooling and linear layers in it, and the record says so.
        assert {f.name for f in found.substituted} <= ({"pool", "fc"} if others == "bf16" else set())
    net = nets("repeated")
    low = _low(net, {"conv": "w1a2"})
    exported = export(low, [net.example], tmp_path / "repeated.onnx")
    assert [exported.asked[name] for name in ("conv", "conv#1", "conv#2")] == ["w1a2"] * 3
    found = verify(exported, low, net.x)
    assert found.substituted == () and found.max_abs_diff < 1e-3


@needs_cxx
@pytest.mark.parametrize("policies", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_random_policies_run_as_asked(nets, tmp_path, policies):
    net, rng = nets("residual"), random.Random(policies)
    convs = ("stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2")
    refused = 0
    for _ in range(policies):
        chosen = {name: rng.choice(("fp32", "int8", "w1a1", "w1a2")) for name in convs}
        chosen |= {name: rng.choice(("fp32", "int8")) for name in ("dw", "fc")}
        low = apply(net.model, Policy({n: Quantize.of(p) for n, p in chosen.items()}), net.example)
        proto = net.probe.onnx(low)
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        marks = precision_marks(proto)
        assert {name: marks[name] for name in chosen} == chosen
        assert fidelity(Exported(path, "openvino", marks)) == []
        if set(chosen.values()) & BITS:
            refused += 1
            with pytest.raises(UnsupportedLayerError, match=r"ONNX Runtime has no kernel for \S+ at w1a[12]"):
                fidelity(Exported(path, "onnxruntime", marks))
        else:
            assert fidelity(Exported(path, "onnxruntime", marks)) == []
    assert refused > 0


def test_the_wrong_file_for_a_runtime_is_not_written(nets, tmp_path):
    net = nets("residual")
    low = _low(net, {"block1.conv1": "w1a1"})
    with pytest.raises(
        UnsupportedLayerError, match=r"block1\.conv1 at w1a1: run the network in OpenVINO, or ask for int8"
    ):
        export(low, [net.example], tmp_path / "net.onnx", runtime="onnxruntime")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", ["dw", "fc"])
def test_layers_without_a_kernel_are_told(nets, layer):
    net = nets("residual")
    low = _low(net, {layer: "w1a2"})
    with pytest.raises(UnsupportedLayerError, match=f"{layer} cannot run at w1a2: .*conv2d without groups"):
        to_onnx(low, [net.example])


@needs_cxx
def test_an_artifact_goes_on(nets, tmp_path):
    net = nets("residual")
    policy = Policy({"block*.conv1": Quantize(1, 2), "stem": Quantize()})
    low = apply(net.model, policy, net.example)
    calibrate(low, [net.x])
    save(low, tmp_path / "net", spec="user.py:net", example_inputs=[net.example], policy=policy)
    again = load(tmp_path / "net", model=net.make()).model
    with torch.no_grad():
        assert torch.equal(again(net.x), low.eval()(net.x))
    found = verify(export(again, [net.example], tmp_path / "net.xml"), low, net.x)
    assert found.substituted == () and found.agreement > 0.95


def test_without_a_compiler_the_reason_is_one_line(nets, monkeypatch):
    net = nets("residual")
    proto = quantize(net.onnx, QuantSpec(bits={"block1.conv1": Grid(1.0, 0, 2)}))
    extension._trusted_library.cache_clear()
    monkeypatch.setenv("NETFIT_CXX", "none")
    with pytest.raises(TargetUnavailable, match=r"1-bit layers, and no C\+\+ compiler was found: install g\+\+"):
        open_session(proto)
    open_session(net.onnx)  # any other network needs none
    monkeypatch.setenv("NETFIT_CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="NETFIT_CXX='no-such-compiler' does not answer"):
        open_session(proto)


@needs_cxx
@pytest.mark.parametrize(
    ("name", "value"), [("strides", [0, 1]), ("bits", 2), ("zero_point", 2), ("kernel_shape", [4, 3])]
)
def test_a_file_with_wrong_attributes_is_refused(nets, name, value):
    from onnx import helper

    proto = quantize(nets("repeated").onnx, QuantSpec(bits={"conv": Grid(1.0, 0, 2)}))
    node = next(n for n in proto.graph.node if n.name == "conv")
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    with pytest.raises((ConfigError, TargetError), match="OpenVINO cannot"):
        open_session(proto).run(np.zeros((1, 4, 8, 8), np.float32))


@needs_cxx
def test_a_library_that_computes_wrongly_is_not_used(nets, monkeypatch):
    extension._trusted_library.cache_clear()
    monkeypatch.setattr(extension, "_run", lambda path, x, weight, grid: np.zeros((2, 5, 5, 4), np.float32))
    proto = quantize(nets("residual").onnx, QuantSpec(bits={"block1.conv1": Grid(1.0, 0, 2)}))
    with pytest.raises(TargetError, match="computes wrong results"):
        open_session(proto)
    extension._trusted_library.cache_clear()


@needs_cxx
def test_training_goes_on_from_what_runs(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten())
    x = torch.randn(8, 3, 8, 8)
    low = apply(net.eval(), Policy({"2": Quantize(1, 2)}), x)
    calibrate(low, [x])
    hook = Quantization.of(low).bits["2"]
    weight, step = low[2].weight.detach().clone(), hook.activation.scale.detach().clone()
    optimizer = torch.optim.SGD(low.parameters(), 0.1)
    low.train()
    for _ in range(5):
        optimizer.zero_grad()
        (low(x) - 1).square().mean().backward()
        optimizer.step()
    assert not torch.equal(low[2].weight, weight) and not torch.equal(hook.activation.scale, step)
    low.eval()
    found = verify(export(low, [x[:1]], tmp_path / "net.onnx"), low, x)
    assert found.substituted == () and found.max_abs_diff < 1e-4
