import numpy as np
import pytest
import torch
from torch import nn

from netfit.deploy import open_session, to_onnx
from netfit.errors import UnsupportedLayerError
from netfit.workload import trace


@pytest.mark.parametrize("name", ["residual", "concat", "repeated"])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_computes_what_torch_computes_at_any_batch(nets, name, runtime):
    net = nets(name)
    session = open_session(net.onnx, runtime)
    for batch in (1, 5):
        x = net.x[:batch]
        assert np.abs(session.run(x.numpy())[0] - net.reference(x)).max() < 1e-5


def test_names_are_those_of_the_workload(nets):
    for name in ("residual", "repeated"):
        net = nets(name)
        graph = net.onnx.graph
        workload = trace(net.model, net.example)
        values = {v for n in graph.node for v in n.output}
        norms = [op for op in workload if op.kind == "batch_norm"]
        folded = {t.name for op in norms for t in op.inputs}  # between a layer and its batch norm
        assert {t.name for op in workload for t in op.outputs} - folded <= values
        rest = [op for op in workload if op not in norms]
        assert {f"{op.name}#{op.call}" if op.call else op.name for op in rest} == {n.name for n in graph.node}
        weights = {op.params["weight"].name for op in rest if "weight" in op.params}
        assert weights <= {t.name for t in graph.initializer}


def test_equal_and_zero_parameters_stay_apart():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    for p in model.parameters():
        nn.init.zeros_(p)
    names = {t.name for t in to_onnx(model, (torch.ones(2, 4),)).graph.initializer}
    assert {"0.weight", "0.bias", "2.weight", "2.bias"} <= names


def test_weights_of_three_axis_products_are_stored_transposed():
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)).eval()
    x = torch.randn(2, 7, 6)
    proto = to_onnx(model, (x,))
    assert {"0.weight.T", "2.weight.T"} <= {t.name for t in proto.graph.initializer}
    with torch.no_grad():
        assert np.abs(open_session(proto).run(x.numpy())[0] - model(x).numpy()).max() < 1e-5


def test_the_file_says_nothing_about_this_machine(nets):
    text = nets("residual").onnx.SerializeToString()
    assert b".py" not in text and b"site-packages" not in text


def test_export_is_quiet_and_leaves_the_model_training(capfd):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    proto = to_onnx(model, (torch.randn(1, 1, 8, 8),))
    assert capfd.readouterr() == ("", "")
    assert all(m.training for m in model.modules())
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_network_that_computes_with_its_batch_size_gets_a_fixed_one():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, -1) * 2

    shape = to_onnx(Fixed(), (torch.randn(2, 3, 4),)).graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_value == 2


def test_an_operator_without_onnx_form_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(UnsupportedLayerError, match=r"Odd has no ONNX form.*bessel"):
        to_onnx(Odd(), (torch.randn(2, 3),))
