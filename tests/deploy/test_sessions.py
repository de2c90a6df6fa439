import numpy as np
import pytest

from netfit.deploy import open_session, quantize, to_onnx
from netfit.deploy._qdq import mark
from netfit.errors import ConfigError, MissingExtraError

RUNTIMES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request):
    return request.param


def _executed(session):
    return {n: e.precision for e in session.layers() for n in (e.name, *e.fused)}


def test_warm_calls_run_the_network(nets, runtime, tmp_path):
    net = nets("residual")
    path = tmp_path / "net.onnx"
    path.write_bytes(net.onnx.SerializeToString())
    session = open_session(path, runtime)
    assert session.input_shapes == [(1, 3, 12, 12)]
    assert callable(session.warm()) and callable(session.warm(net.x[:4].numpy()))
    session.warm([net.x[:1].numpy()])()


def test_layers_are_named_after_their_sites(nets, runtime):
    executed = _executed(open_session(nets("residual").onnx, runtime))
    layers = {"stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "pool", "dw", "fc"}
    assert layers <= executed.keys()
    assert set(executed.values()) == {"fp32"}
    repeated = _executed(open_session(nets("repeated").onnx, runtime))
    assert {"conv", "conv#1", "conv#2", "fc"} <= repeated.keys()


def test_linear_layers_merged_into_one_kernel_are_listed_each(nets, spec, runtime):
    net = nets("concat")
    for chosen in ({"fc1"}, {"fc2"}, {"fc1", "fc2"}):
        executed = _executed(open_session(quantize(net.onnx, spec(net.onnx, net.x.numpy(), chosen)), runtime))
        asked = {name: "int8" if name in chosen else "fp32" for name in ("fc1", "fc2")}
        assert {name: executed[name] for name in asked} == asked


def test_a_float_island_between_int8_layers_stays_float(nets, spec, runtime):
    net = nets("residual")
    layers = {n.name for n in net.onnx.graph.node if n.op_type in ("Conv", "Gemm")} - {"block2.conv1"}
    executed = _executed(open_session(quantize(net.onnx, spec(net.onnx, net.x.numpy(), layers)), runtime))
    assert executed["block2.conv1"] == "fp32"
    assert {executed[name] for name in layers} == {"int8"}


def test_profile_names_layers_and_takes_time(nets, runtime):
    net = nets("residual")
    times = open_session(net.onnx, runtime, profile=True).profile(runs=4)
    assert {"stem", "block1.conv1", "fc"} <= {name for name, _ in times}
    assert all(seconds >= 0 for _, seconds in times) and sum(seconds for _, seconds in times) > 0
    with pytest.raises(ConfigError, match="profile=True"):
        open_session(net.onnx, runtime).profile()


def test_bfloat16_layers_beside_float_ones(nets):
    net = nets("residual")
    asked = {"block1.conv1": "bf16", "block1.conv2": "bf16"}
    session = open_session(mark(_copy(net.onnx), asked), "openvino")
    executed = _executed(session)
    convolutions = ("stem", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "dw")
    assert {n: executed[n] for n in convolutions} == {n: asked.get(n, "fp32") for n in convolutions}
    difference = np.abs(session.run(net.x.numpy())[0] - net.reference()).max()
    assert 1e-6 < difference < 0.05


def _copy(proto):
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    return result


def test_bad_input_is_one_line(nets, runtime, tmp_path):
    proto = nets("residual").onnx
    session = open_session(proto, runtime)
    for x in (np.zeros((1, 3, 12, 11), np.float32), [np.zeros((1, 3, 12, 12), np.float32)] * 2):
        with pytest.raises(ConfigError, match="only the batch size"):
            session.run(x)
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        open_session(proto, "openvin")
    with pytest.raises(ConfigError, match="threads=0"):
        open_session(proto, runtime, 0)
    with pytest.raises(ConfigError, match="is not a file"):
        open_session(tmp_path / "none.onnx", runtime)
    with pytest.raises(ConfigError, match="has another ending"):
        open_session(tmp_path / "none.pt", runtime)
    for content in (b"", b"not a network", proto.SerializeToString()[:3000]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ConfigError):
            open_session(tmp_path / "bad.onnx", runtime)


def test_a_missing_runtime_names_the_extra(nets, runtime, monkeypatch):
    proto = nets("residual").onnx
    monkeypatch.setitem(__import__("sys").modules, runtime, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'netfit\[export\]'"):
        open_session(proto, runtime)


def test_two_inputs(runtime):
    import torch

    class Sum(torch.nn.Module):
        def forward(self, a, b):
            return a + 2 * b

    a, b = torch.randn(2, 3), torch.randn(2, 3)
    session = open_session(to_onnx(Sum(), (a, b)), runtime)
    assert np.allclose(session.run([a.numpy(), b.numpy()])[0], (a + 2 * b).numpy(), atol=1e-6)
