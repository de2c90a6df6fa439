import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from netfit.deploy import Grid, QuantSpec, open_session, quantize, to_onnx
from netfit.deploy._qdq import _safe_scales
from netfit.errors import ConfigError

S_IN, S_MID, S_OUT = 0.03, 0.05, 0.06


class Small(nn.Module):
    """conv, relu, add: small enough to write its rounding by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        return F.relu(self.conv2(x)) + x


def _act(x, scale, zero_point=0):
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


def _weight(w):
    s = w.abs().flatten(1).amax(1) / 127
    return torch.fake_quantize_per_channel_affine(w, s, torch.zeros(len(w), dtype=torch.int32), 0, -127, 127), s.numpy()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = Small().eval()
    return model, to_onnx(model, (torch.randn(2, 3, 10, 10),))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@torch.no_grad()
def test_equals_the_fake_quantized_network(small, runtime):
    model, proto = small
    (w1, s1), (w2, s2) = _weight(model.conv1.weight), _weight(model.conv2.weight)
    grids = {"x": Grid(S_IN, 128), "relu": Grid(S_MID), "relu_1": Grid(S_OUT)}
    session = open_session(quantize(proto, QuantSpec(grids, {"conv1": s1, "conv2": s2})), runtime)
    executed = {e.name: e.precision for e in session.layers()}
    assert executed["conv1"] == executed["conv2"] == "int8"
    x = torch.randn(8, 3, 10, 10)
    h = _act(F.relu(F.conv2d(_act(x, S_IN, 128), w1, model.conv1.bias, padding=1)), S_MID)
    y = _act(F.relu(F.conv2d(h, w2, model.conv2.bias, padding=1)), S_OUT) + h
    steps = np.abs(session.run(x.numpy())[0] - y.numpy()) / S_OUT
    assert steps.max() < 1.5 and (steps > 0.5).mean() < 0.005  # the int32 bias moves values that lie on an edge


@pytest.mark.parametrize("name", ["residual", "concat", "repeated"])
def test_onnx_runtime_equals_the_onnx_definition(nets, spec, name):
    from onnx.reference import ReferenceEvaluator

    net = nets(name)
    layers = {n.name for n in net.onnx.graph.node if n.op_type in ("Conv", "Gemm")}
    q = quantize(net.onnx, spec(net.onnx, net.x.numpy(), layers))
    x = net.x[:2].numpy()
    expected = ReferenceEvaluator(q).run(None, {q.graph.input[0].name: x})[0]
    assert np.abs(open_session(q, "onnxruntime").run(x)[0] - expected).max() < 1e-5


def test_one_pair_for_all_readers_and_valid_onnx(nets, spec):
    import onnx

    net = nets("residual")
    before = net.onnx.SerializeToString()
    q = quantize(net.onnx, spec(net.onnx, net.x.numpy(), {"stem", "block1.conv1", "block1.conv2", "dw"}))
    onnx.checker.check_model(q, full_check=True)
    assert net.onnx.SerializeToString() == before
    readers = [n.name for n in q.graph.node if "relu/dq" in n.input]
    assert readers == ["block1.conv1", "block1.add"]
    kinds = [n.op_type for n in q.graph.node if n.name.startswith("relu/")]
    assert kinds == ["QuantizeLinear", "DequantizeLinear"]
    pool = next(n for n in q.graph.node if n.name == "dw")
    assert pool.input[0] == "max_pool2d/dq"  # pooling hands the scale of block2.relu_1 through
    assert "max_pool2d/scale" in {t.name for t in q.graph.initializer}


def test_fewer_levels_than_uint8_are_cut(small):
    _, proto = small
    q = quantize(proto, QuantSpec({"relu": Grid(0.1, 0, 4)}))
    x = np.random.default_rng(0).normal(size=(4, 3, 10, 10)).astype(np.float32) * 5
    probe = open_session(_with_output(q, "relu/dq"), "onnxruntime")
    assert set(np.unique(np.round(probe.run(x)[1], 5))) == {0.0, np.float32(0.1), np.float32(0.2), np.float32(0.3)}


def _with_output(proto, value):
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    result.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    return result


def test_wrong_names_and_unquantized_inputs_are_told(small):
    _, proto = small
    ones = np.ones(8, np.float32)
    for spec, message in (
        (QuantSpec(layers={"conv": ones}), "no layer 'conv'.*conv1"),
        (QuantSpec(bf16=frozenset({"Conv2"})), "no layer 'Conv2'.*conv2"),
        (QuantSpec({"relu_9": Grid(1.0)}), "no tensor 'relu_9'"),
        (QuantSpec(layers={"conv2": ones}), "conv2 cannot be int8: its input 'relu' has 0 grids"),
    ):
        with pytest.raises(ConfigError, match=message):
            quantize(proto, spec)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8),
    st.floats(-1e3, 1e3, width=32),
    st.floats(2.0**-20, 10, width=32),
)
def test_every_bias_fits_into_int32(scales, bias, step):
    scales = np.array(scales, np.float32)
    safe = _safe_scales(scales, np.full_like(scales, bias), np.float32(step))
    assert (safe >= scales).all() and (safe > 0).all()
    assert (np.abs(np.rint(bias / (np.float32(step) * safe).astype(np.float32))) < 2**31).all()
