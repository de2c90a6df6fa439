"""Every kind of network goes all the way: planned, pruned by a third, exported, and the file computes the same."""

import numpy as np
import pytest
import torch

from netfit.compress import Prune, plan_channels
from netfit.deploy import export, open_session, verify
from netfit.surgery import Policy, Quantize, apply, calibrate, sites
from netfit.train import recalibrate
from netfit.workload import trace

from .zoo import ZOO
from .zoo import build as zoo

# ResNet, VGG, MobileNetV2, DenseNet, ShuffleNet, U-Net, ViT, 1-D keyword, a module used three times, LSTM
FAST = ("shuffle", "unet", "recurrent")  # what the tests of single rooms do not cover
NETS = ("residual", "vgg", "mobilenet", "dense", "shuffle", "unet", "encoder", "keyword", "shared", "recurrent")
SAMPLES = 2000


def pruned(name):
    """The network with 30 % of every free group removed, and an input for it."""
    model, x = zoo(name)
    groups = [g for g in plan_channels(model, x).free if g.layers]
    assert groups, "there is something to prune"
    small = apply(model, Policy({g.layers[0]: Prune(sparsity=0.3) for g in groups}), x).eval()
    assert trace(small, x).totals()["macs"] < trace(model, x).totals()["macs"]
    return small, x


def samples(name, n=SAMPLES):
    return torch.randn(n, *ZOO[name][1][1:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETS])
def test_a_pruned_network_runs_as_a_file(name, tmp_path):
    pytest.importorskip("openvino")
    small, x = pruned(name)
    exported = export(small, (x[:1],), tmp_path / "net.onnx")
    with torch.no_grad():
        expected = small(x).numpy()
    for runtime in ("openvino", "onnxruntime"):
        found = open_session(exported.path, runtime).run(x.numpy())[0]
        assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_int8_files_decide_as_the_network_does(name, tmp_path):
    pytest.importorskip("openvino")
    small, x = pruned(name)
    inputs = samples(name)
    recalibrate(small, inputs[:256])
    layers = {site.name for site in sites(small, x) if site.kind in ("conv1d", "conv2d", "linear")}
    low = apply(small, Policy({n: Quantize() for n in sorted(layers)}), x).eval()
    calibrate(low, inputs[:512].split(128))
    exported = export(low, (x[:1],), tmp_path / "net.onnx", runtime="onnxruntime")
    found = verify(exported, low, inputs, "onnxruntime")
    assert found.agreement >= 0.995
    # ONNX Runtime has no integer convolution with a float result, and that of the network stays float.
    assert {s.name for s in found.substituted} == ({"head"} if name == "unet" else set())
