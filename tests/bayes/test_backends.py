"""The same pass in C and in ONNX Runtime, and the choice between them."""

import pytest
import torch
from torch import nn

from netfit import models
from netfit.bayes import to_pfp, uncertainty
from netfit.bayes.pfp._native import Builder
from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.kernels import toolchain

from .nets import Residual, built, inputs, mlp

needs_cc = pytest.mark.skipif(toolchain() is None, reason="no C compiler")
CASES = {
    "mlp": (mlp, (6,)),
    "one hidden layer": (lambda: nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)), (6,)),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)),
    "residual": (Residual, (2, 12, 12)),
    "lenet": (lambda: models.build("lenet5"), (1, 28, 28)),
}


def same(a, b, x):
    """Within what one shared exponential costs: 1e-3 of a standard deviation, 1e-2 of a variance."""
    a, b = a(x), b(x)
    assert ((a.mean - b.mean).abs() <= 1e-3 * a.var.sqrt() + 1e-5).all()
    assert ((a.var - b.var).abs() <= 1e-2 * a.var).all()
    if a.cov is not None:
        assert ((a.cov - b.cov).abs().amax((1, 2)) <= 1e-2 * a.var.amax(1)).all()


@needs_cc
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{}, {"maxpool": "clark", "avgpool_rho": 0.3, "head_cov": "diag"}])
def test_native_agrees(case, settings):
    make, shape = CASES[case]
    x = inputs(5, *shape)
    pfp = to_pfp(built(make, x), x, **settings)
    for batch in (1, 5):
        same(pfp, pfp.compile("native", batch), x[:batch])


@needs_cc
def test_native_takes_the_weights_of_now_and_one_batch_size():
    x = inputs(4, 6)
    pfp = to_pfp(built(mlp, x), x)
    before = pfp.compile("native", 4)
    with torch.no_grad():
        for p in pfp.parameters():
            p.mul_(1.1)
    same(pfp.eval(), pfp.compile("native", 4), x)
    assert not torch.allclose(before(x).mean, pfp(x).mean)
    with pytest.raises(ConfigError, match="prepared for"):
        before(x[:2])


def test_native_says_what_it_lacks():
    x = inputs(3, 6)
    pfp = to_pfp(built(lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)), x), x)
    with pytest.raises(UnsupportedLayerError, match=r"no aten\.gelu.*'1'.*another"):
        pfp.compile("native", 3)
    assert pfp.compile(["native", "eager"], 3).backend == "eager"


@needs_cc
def test_a_wide_last_layer_takes_twice_its_weights():
    """A last layer of 128 to 3100 outputs: laplace-torch's users report 15 GB for it."""
    x = inputs(1, 128)
    pfp = to_pfp(built(lambda: nn.Sequential(nn.Linear(128, 3100)), x), x, head_cov="diag")
    kept = [t for t in Builder(pfp, 1).build()._kept if isinstance(t, torch.Tensor)]
    assert sum(t.nbytes for t in kept) < 2.5 * 4 * 128 * 3100
    with pytest.raises(ConfigError, match=r"3100 classes.*head_cov='diag'"):
        to_pfp(pfp.source, x)


def test_the_fastest_is_taken():
    x = inputs(4, 6)
    compiled = to_pfp(built(mlp, x), x).compile(["eager", "native"], 4)
    assert compiled.seconds[compiled.backend] == min(compiled.seconds.values())
    with pytest.raises(ConfigError, match="did you mean 'native'"):
        to_pfp(built(mlp, x), x).compile("nativ", 4)


def test_onnx_file_gives_moments_and_the_whole_answer(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    x = inputs(7, 6)
    pfp = to_pfp(built(mlp, x), x)
    pfp.export(tmp_path / "net.onnx", samples=50)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    out = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x.numpy()}), strict=True))
    want = pfp(x)
    u = uncertainty(want, n_samples=50)
    assert torch.allclose(torch.from_numpy(out["logits_var"]), want.var, rtol=1e-3)
    assert torch.allclose(torch.from_numpy(out["logits_cov"]), want.cov, atol=1e-3)
    assert torch.allclose(torch.from_numpy(out["probs"]), u.probs, atol=1e-3)
    assert torch.allclose(torch.from_numpy(out["epistemic"]), u.epistemic, atol=1e-3)
    with pytest.raises(ConfigError, match=r"\.onnx"):
        pfp.export(tmp_path / "net.bin")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_inductor_agrees():
    x = inputs(4, 6)
    pfp = to_pfp(built(mlp, x), x)
    same(pfp, pfp.compile("inductor", 4), x)
