import numpy as np
import pytest
import torch
from torch import nn

from netfit.deploy import open_session, reslice, to_onnx
from netfit.surgery import Policy, Quantize, apply


class Chain(nn.Module):
    """No batch norm, so that a sliced file must compute exactly what the smaller model computes."""

    def __init__(self, a: int = 8, b: int = 12, groups: int = 1) -> None:
        super().__init__()
        self.a, self.dw = nn.Conv2d(3, a, 3), nn.Conv2d(a, a, 3, groups=a)
        self.b, self.c = nn.Conv2d(a, b, 1, bias=False), nn.Conv2d(b, b, 1, groups=groups)
        self.fc1, self.fc2 = nn.Linear(b * 16, b), nn.Linear(b, 5)

    def forward(self, x):
        x = torch.relu(self.dw(torch.relu(self.a(x))))
        x = torch.max_pool2d(torch.relu(self.c(self.b(x))), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def _arrays(model):
    return {k: v.numpy() for k, v in model.state_dict().items()}


@pytest.fixture(scope="module")
def chain():
    return to_onnx(Chain(groups=4).eval(), (torch.randn(2, 3, 12, 12),))


@pytest.mark.parametrize(("a", "b", "groups"), [(8, 12, 4), (1, 3, 1), (5, 9, 3), (7, 6, 2)])
@torch.no_grad()
def test_a_sliced_file_equals_the_smaller_model(chain, a, b, groups):
    small = Chain(a, b, groups).eval()
    sliced = reslice(chain, _arrays(small))
    x = torch.randn(3, 3, 12, 12)
    for runtime in ("openvino", "onnxruntime"):
        assert np.abs(open_session(sliced, runtime).run(x.numpy())[0] - small(x).numpy()).max() < 1e-5


def test_sizes_that_do_not_fit_are_refused(chain):
    whole = _arrays(Chain(groups=4))
    for name, shape in (("a.weight", (7, 3, 3, 3)), ("fc1.weight", (12, 100)), ("c.weight", (11, 3, 1, 1))):
        assert reslice(chain, whole | {name: np.zeros(shape, np.float32)}) is None


def test_nothing_to_change_changes_nothing(chain):
    sliced = reslice(chain, {})
    assert [t.name for t in sliced.graph.initializer][: len(chain.graph.initializer)] == [
        t.name for t in chain.graph.initializer
    ]
    assert len(sliced.graph.node) == len(chain.graph.node)


def test_a_probe_times_what_an_export_would(nets):
    net = nets("residual")
    small = net.make(9).eval()
    quantized = apply(small, Policy({"block1.*": Quantize(), "dw": Quantize()}), net.example)
    for model in (small, quantized):
        fast, slow = net.probe.onnx(model), to_onnx(model, (net.example,))
        assert [(n.op_type, n.name) for n in fast.graph.node] == [(n.op_type, n.name) for n in slow.graph.node]
        shapes = [{t.name: tuple(t.dims) for t in p.graph.initializer} for p in (fast, slow)]
        assert {k: s for k, s in shapes[0].items() if "/" in k or "." in k}.items() >= {
            k: s for k, s in shapes[1].items() if "." in k
        }.items()
        assert open_session(fast, "onnxruntime").run(net.x.numpy())[0].shape == (64, 7)


def test_a_network_of_other_layers_is_exported(nets):
    net = nets("residual")
    other = nn.Sequential(nn.Conv2d(3, 3, 12), nn.Flatten()).eval()
    proto = net.probe.onnx(other)
    with torch.no_grad():
        assert np.abs(open_session(proto).run(net.x.numpy())[0] - other(net.x).numpy()).max() < 1e-5
