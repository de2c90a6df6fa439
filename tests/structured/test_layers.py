"""Every layer equals the dense one it stands for, in every way of running it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.structured import (
    ButterflyLinear,
    KSChain,
    KSLinear,
    LowRankLinear,
    MonarchConv2d,
    MonarchLinear,
    PixelflyLinear,
    ks_multiply,
)

LINEAR = {
    "butterfly": lambda **kw: ButterflyLinear(100, 70, **kw),
    "kaleidoscope": lambda **kw: ButterflyLinear(32, 32, nblocks=2, **kw),
    "tied": lambda **kw: ButterflyLinear(64, 64, parametrization="tied", **kw),
    "rotation": lambda **kw: ButterflyLinear(64, 64, parametrization="rotation", **kw),
    "monarch": lambda **kw: MonarchLinear(300, 700, **kw),
    "monarch 1000 -> 10": lambda **kw: MonarchLinear(1000, 10, **kw),
    "block diagonal": lambda **kw: KSLinear(50, 33, KSChain.block_diagonal(50, 33, 5), **kw),
    "low rank": lambda **kw: LowRankLinear(30, 40, 4, **kw),
    "pixelfly": lambda **kw: PixelflyLinear(96, 250, block_size=16, rank=3, **kw),
    "pixelfly without low rank": lambda **kw: PixelflyLinear(128, 64, block_size=8, rank=0, n_factors=1, **kw),
}
CONV = {
    "3x3": lambda **kw: MonarchConv2d(16, 32, 3, padding=1, **kw),
    "strided, dilated": lambda **kw: MonarchConv2d(32, 16, (3, 1), 8, stride=(2, 1), dilation=2, **kw),
    "1x1": lambda **kw: MonarchConv2d(64, 32, 1, **kw),
    "1x1 strided": lambda **kw: MonarchConv2d(16, 16, 1, rank=1, stride=2, **{"bias": False, **kw}),
}
ALL = {**LINEAR, **CONV}


def example(layer, samples=5, dtype=torch.float32):
    draw = torch.Generator().manual_seed(1)
    if isinstance(layer, MonarchConv2d):
        return torch.randn(samples, layer.in_channels, 9, 7, generator=draw, dtype=dtype)
    return torch.randn(samples, 3, layer.in_features, generator=draw, dtype=dtype)


def dense(layer, x):
    if isinstance(layer, MonarchConv2d):
        return F.conv2d(x, layer.to_dense(), layer.bias, layer.stride, layer.padding, layer.dilation)
    return F.linear(x, layer.to_dense(), layer.bias)


def near(one, two, tolerance):
    return float((one - two).detach().abs().max()) <= tolerance * float(two.detach().abs().max())


def make(name, **kw):
    return ALL[name](generator=torch.Generator().manual_seed(0), **kw)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("native", [True, False])
def test_values_and_gradients_are_those_of_the_dense_layer(name, native, monkeypatch):
    if not native:
        monkeypatch.setenv("NETFIT_CC", "none")
    layer = make(name)
    x = example(layer, 11).requires_grad_()
    y, expected = layer(x), dense(layer, x)
    leaves, g = [x, *layer.parameters()], torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    assert near(y, expected, 1e-5)
    for one, two in zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True):
        assert near(one, two, 1e-5)
    with torch.no_grad():
        assert near(layer(x), expected, 1e-5)
        assert layer(x[:0]).shape == (0, *y.shape[1:])


@pytest.mark.parametrize("name", ALL)
def test_double_precision(name):
    layer = make(name, dtype=torch.float64)
    x = example(layer, 2, torch.float64)
    assert near(layer(x), dense(layer, x), 1e-12)


@pytest.mark.parametrize("name", ["tied", "rotation", "low rank", "1x1 strided"])
def test_gradcheck(name):
    layer = make(name, dtype=torch.float64)
    x = example(layer, 1, torch.float64)[..., :2].contiguous() if name in CONV else example(layer, 1, torch.float64)
    assert torch.autograd.gradcheck(layer, x.requires_grad_(), fast_mode=True)
    inputs = [p for p in layer.parameters() if p.ndim > 1]
    assert torch.autograd.gradcheck(lambda *_: layer(x), inputs, fast_mode=True)


@pytest.mark.parametrize("execute", ["fused", "factors", "dense", "auto"])
def test_every_execution_gives_the_same(execute):
    layer = ButterflyLinear(64, 50, execute=execute, generator=torch.Generator().manual_seed(0))
    x = example(layer)
    assert near(layer(x), dense(layer, x), 1e-5)
    with torch.no_grad():
        assert near(layer(x), dense(layer, x), 1e-5)


@pytest.mark.parametrize("name", ["butterfly", "rotation", "pixelfly", "1x1"])
def test_what_is_kept_for_inference_follows_the_parameters(name):
    layer, x = make(name), None
    x = example(layer)
    with torch.no_grad():
        layer(x)
        for p in layer.parameters():
            p.mul_(0.5)
        assert near(layer(x), dense(layer, x), 1e-5)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        next(iter(other.parameters())).mul_(2.0)
        assert near(other(x), dense(other, x), 1e-5)
        assert near(layer(x), dense(layer, x), 1e-5)
        other.load_state_dict(layer.state_dict())
        assert near(other(x), dense(layer, x), 1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_new_layer_has_the_spread_of_a_dense_one(name):
    if name in ("rotation", "kaleidoscope", "tied", "butterfly"):
        pytest.skip("rotations keep lengths by construction; cropped ones keep less")
    layer = make(name, bias=False)
    weight = layer.to_dense().detach()
    spread = float(weight.flatten(1).square().sum(1).mean())
    assert 0.2 < spread < 0.5  # nn.Linear and nn.Conv2d: 1/3


def test_butterflies_start_with_the_spread_of_a_dense_layer():
    weight = ButterflyLinear(256, 256, generator=torch.Generator().manual_seed(0)).to_dense().detach()
    assert float(weight.square().sum(1).mean()) == pytest.approx(1 / 3, rel=1e-4)
    turned = make("rotation").to_dense().detach()
    assert near(turned @ turned.T, torch.eye(64), 1e-5)


def test_parameters_of_the_published_butterflies():
    sizes = {p: ButterflyLinear(1024, 1024, parametrization=p).weight_params for p in ("free", "tied", "rotation")}
    assert sizes == {"free": 20480, "tied": 4 * 1023, "rotation": 5120}
    network = 1024 * 1024 + 1024 + 10250
    assert 1 - (sizes["tied"] + 1024 + 10250) / network >= 0.985


def test_the_same_seed_gives_the_same_values():
    for name in ALL:
        one, two = make(name), make(name)
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


def test_layouts_of_the_product():
    draw = torch.Generator().manual_seed(0)
    factors = [torch.randn(p.shape, generator=draw) for p in KSChain.monarch(12, 20).patterns]
    x = torch.randn(2, 12, 7, generator=draw)
    expected = ks_multiply(x.transpose(1, 2), factors).transpose(1, 2)
    assert near(ks_multiply(x, factors, layout="feature_first"), expected, 1e-5)
    assert near(ks_multiply(x[0], factors, layout="feature_first"), expected[0], 1e-5)
    assert ks_multiply(x[0, :, 0], factors).shape == (20,)


def test_graphs_hold_plain_operations():
    layer = MonarchLinear(64, 48, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    program = torch.export.export(layer, (x,), strict=False)
    assert near(program.module()(x), layer(x), 1e-5)
    assert near(torch.func.vmap(layer)(x), layer(x), 1e-5)


def test_autocast_lowers_the_precision_as_of_a_dense_layer():
    layer, x = MonarchLinear(64, 48), torch.ones(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["butterfly", "monarch", "pixelfly", "1x1"])
def test_compiled_layers_are_one_graph(name):
    layer = make(name)
    x = example(layer)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert near(compiled(x), layer(x), 1e-5)
    with torch.no_grad():
        assert near(compiled(x), layer(x), 1e-5)


def test_an_exported_butterfly_has_its_factors_multiplied_out():
    layer = ButterflyLinear(256, 256, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        program = torch.export.export(layer, (x,), strict=False)
    products = [n for n in program.graph.nodes if "matmul" in str(n.target)]
    assert len(products) == 2
    assert near(program.module()(x), layer(x), 1e-5)


@pytest.mark.parametrize(
    ("make_bad", "words"),
    [
        (lambda: KSLinear(65, 64, KSChain.butterfly(64)), "65 -> 64 does not fit a chain 64 -> 64"),
        (lambda: ButterflyLinear(8, 8, parametrization="tide"), "did you mean 'tied'"),
        (lambda: ButterflyLinear(8, 8, execute="densely"), "did you mean 'dense'"),
        (lambda: MonarchLinear(8, 8, parametrization="rotation"), "blocks of 2x2"),
        (lambda: PixelflyLinear(64, 64, 16, n_factors=3), "allow 0 to 2"),
        (lambda: PixelflyLinear(64, 64, 0), "blocks of 0"),
        (lambda: MonarchConv2d(12, 16, 3, 8), "does not divide 12 and 16"),
        (lambda: MonarchLinear(8, 8)(torch.zeros(2, 9)), "shape \\(2, 9\\)"),
        (lambda: PixelflyLinear(8, 8, 4)(torch.zeros(3, 9)), "shape \\(3, 9\\)"),
        (lambda: ks_multiply(torch.zeros(2, 9), [torch.zeros(1, 1, 8, 8)]), "9 features"),
        (lambda: ks_multiply(torch.zeros(2, 8), [torch.zeros(1, 1, 8, 8)] * 2 + [torch.zeros(1, 1, 1, 9)]), "factor 3"),
    ],
)
def test_bad_input_is_named(make_bad, words):
    with pytest.raises(ConfigError, match=words):
        make_bad()


def test_convolutions_without_a_monarch_form():
    for conv in (
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding_mode="reflect"),
    ):
        with pytest.raises(UnsupportedLayerError, match="groups=1"):
            MonarchConv2d.from_conv(conv)
