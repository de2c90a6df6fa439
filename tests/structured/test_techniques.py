"""Structured layers by policy: contract, files, export, errors."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from netfit import structured
from netfit.errors import ConfigError, PolicyConflict, UnsupportedLayerError
from netfit.surgery import Policy, apply, load, save
from netfit.testing import TechniqueContract


class Linears(nn.Module):
    """Two linear layers wide enough for blocks."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 48), nn.Linear(48, 64, bias=False)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


class OfLinears(TechniqueContract):
    pattern: ClassVar[str] = "kind:linear"

    def model(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Linears().eval()

    def example_inputs(self):
        return (torch.randn(6, 64, generator=torch.Generator().manual_seed(1)),)


class TestButterfly(OfLinears):
    @pytest.fixture(params=["free", "tied", "rotation"])
    def technique(self, request):
        return structured.Butterfly(parametrization=request.param, seed=3)


class TestMonarchLinear(OfLinears):
    @pytest.fixture
    def technique(self):
        return structured.Monarch(nblocks=4)


class TestPixelfly(OfLinears):
    @pytest.fixture
    def technique(self):
        return structured.Pixelfly(block_size=8, rank=2)


class TestLowRank(OfLinears):
    @pytest.fixture
    def technique(self):
        return structured.LowRank(rank=5)


class TestMonarchConvolution(TechniqueContract):
    pattern: ClassVar[str] = "pointwise"

    @pytest.fixture
    def technique(self):
        return structured.Monarch()


class TestLowRankConvolution(TechniqueContract):
    pattern: ClassVar[str] = "down"

    @pytest.fixture
    def technique(self):
        return structured.LowRank()


TECHNIQUES = [
    structured.Butterfly(),
    structured.Butterfly("tied"),
    structured.Monarch(),
    structured.Pixelfly(block_size=16, rank=4),
    structured.LowRank(),
]


def mlp():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        from netfit import models

        return models.build("mlp").eval(), torch.randn(4, 1, 28, 28)


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
def test_saved_networks_come_back(technique, tmp_path):
    model, x = mlp()
    layer = next(name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    policy = Policy({layer: technique})
    new = apply(model, policy, x).eval()
    with torch.no_grad():
        for p in new.parameters():
            p.add_(0.01)
        save(new, tmp_path / "net", spec="mlp", example_inputs=[x], policy=policy)
        found = load(tmp_path / "net")
        assert found.policy == policy
        assert torch.allclose(found.model(x), new(x), atol=1e-5)


def test_exported_files_compute_the_same(tmp_path):
    deploy = pytest.importorskip("netfit.deploy")
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1))
    net = nn.Sequential(conv, nn.Flatten(), *(nn.Linear(144, 144) for _ in TECHNIQUES)).eval()
    x = torch.randn(2, 16, 3, 3)
    policy = {"0.0": structured.LowRank(), "0.3": structured.Monarch(nblocks=4)}
    policy |= {str(i): technique for i, technique in enumerate(TECHNIQUES, start=2)}
    new = apply(net, Policy(policy), x).eval()
    exported = deploy.export(new, [x], tmp_path / "net.onnx")
    for runtime in ("openvino", "onnxruntime"):
        assert deploy.verify(exported, new, x, runtime).max_abs_diff < 1e-5


def test_the_workload_counts_the_products_of_the_factors():
    from netfit.workload import trace

    model, x = Linears().eval(), torch.ones(2, 64)
    new = apply(model, Policy({"one": structured.Monarch(nblocks=8, rank=1)}), x)
    ops = [op for op in trace(new, x) if op.name.startswith("one") and op.macs]
    assert sum(op.macs for op in ops) == 2 * new.one.chain.n_params


def test_shared_layers_stay_shared():
    layer = nn.Linear(32, 32)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    new = apply(net, Policy({"0": structured.Monarch()}), torch.ones(1, 32))
    assert new[0] is new[2] and not isinstance(new[0], nn.Linear)


def test_conflicting_settings_of_one_layer():
    net = nn.Sequential(nn.Linear(8, 8))
    found = structured.Monarch.rewrite
    from netfit.surgery import Site

    places = {Site("0", i, "linear", (1, 8)): structured.Monarch(nblocks=i + 1) for i in range(2)}
    with pytest.raises(PolicyConflict, match="share one weight"):
        found(net, places, (torch.ones(1, 8),))


@pytest.mark.parametrize(
    ("layer", "technique", "words"),
    [
        (nn.Conv2d(16, 16, 3, groups=16), structured.Monarch(), "groups=16"),
        (nn.Conv2d(16, 16, 3, groups=16), structured.LowRank(), "groups=16"),
        (nn.Conv2d(12, 16, 3), structured.Monarch(nblocks=8), "nblocks=8"),
        (nn.Conv2d(12, 16, 3), structured.Butterfly(), "finds only conv2d"),
    ],
)
def test_layers_without_such_a_form(layer, technique, words):
    x = torch.ones(1, layer.in_channels, 5, 5)
    with pytest.raises(UnsupportedLayerError, match=words):
        apply(nn.Sequential(layer), Policy({"0": technique}), x)


def test_a_product_that_is_no_layer():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight)

    with pytest.raises(UnsupportedLayerError, match="no layer of its own"):
        apply(Functional(), Policy({"linear": structured.Monarch()}), torch.ones(1, 4))


def test_settings_out_of_range_in_a_file():
    mistakes = {
        "a": {"monarch": {"nblocks": 0}},
        "b": {"butterfly": {"parametrisation": "free"}},
        "c": {"low_rank": {"rank": -1}},
        "d": {"pixelfly": {"rank": -1}},
    }
    with pytest.raises(ConfigError) as e:
        Policy.from_dict(mistakes)
    for words in ("nblocks=0", "did you mean 'parametrization'", "rank=-1", "4 mistakes"):
        assert words in str(e.value)
    with pytest.raises(ConfigError, match="did you mean 'rotation'"):
        structured.Butterfly("rotations")
