"""Built-in networks: shapes, structure, gradients, and shapes they refuse."""

import pytest
import torch

from netfit import models
from netfit.errors import ConfigError
from netfit.models._build import BUILTINS


@pytest.mark.parametrize("name", models.names())
def test_default_and_odd_number_of_classes(name):
    entry = BUILTINS[name]
    x = torch.randn(2, *entry.in_shape)
    assert models.build(name).eval()(x).shape == (2, entry.num_classes)
    assert models.build(name, num_classes=7).eval()(x).shape == (2, 7)


@pytest.mark.parametrize("name", models.names())
def test_every_parameter_gets_a_gradient(name):
    model = models.build(name)
    model(torch.randn(2, *BUILTINS[name].in_shape)).square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


@pytest.mark.parametrize("name", ["digits-cnn", "lenet5", "resmlp", "resnet20", "ds-cnn"])
def test_torch_export_keeps_the_function(name):
    model = models.build(name).eval()
    x = torch.randn(2, *BUILTINS[name].in_shape)
    exported = torch.export.export(model, (x,)).module()
    assert torch.allclose(exported(x), model(x), atol=1e-5)


@pytest.mark.parametrize("name", [n for n in models.names() if BUILTINS[n].smallest])
def test_smallest_image_is_the_smallest(name):
    side = BUILTINS[name].smallest
    channels = BUILTINS[name].in_shape[0]
    model = models.build(name, in_shape=(channels, side, side)).eval()
    assert model(torch.randn(1, channels, side, side)).isfinite().all()
    with pytest.raises(ConfigError, match=f"at least {side}x{side} pixels"):
        models.build(name, in_shape=(channels, side - 1, side))
    with pytest.raises(ConfigError, match=r"takes images \(C, H, W\)"):
        models.build(name, in_shape=(16,))


def test_mlp_takes_any_shape():
    assert models.build("mlp", in_shape=(16,), num_classes=26)(torch.randn(3, 16)).shape == (3, 26)


def test_sizes_of_the_papers():
    def size(name):
        return sum(p.numel() for p in models.build(name).parameters())

    assert size("lenet5") == 61_706  # 1x28x28 input, padded first convolution
    assert size("resnet18") == 11_173_962  # 3x3 stem
    assert size("resnet20") == 272_474  # 269,722 of option A, 2,560 of two projections, 192 of their BatchNorm


def test_residual_blocks_project_only_where_the_shape_changes():
    net = models.build("resnet20")
    projections = [n for n, m in net.named_modules() if n.endswith("shortcut.0")]
    assert projections == ["layer2.0.shortcut.0", "layer3.0.shortcut.0"]


def test_weights_come_from_the_global_generator():
    def weights(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return models.build("digits-cnn").conv1.weight

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_mistakes():
    with pytest.raises(ConfigError, match=r"unknown model 'resnet2'; did you mean 'resnet20'"):
        models.build("resnet2")
    with pytest.raises(ConfigError, match=r"file\.py:factory"):
        models.build("net.py")
    with pytest.raises(ConfigError, match="num_classes must be at least 1, not 0"):
        models.build("mlp", num_classes=0)
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        models.build("resnet20", in_shape=(0, 8, 8))


def test_recipes():
    assert models.recipe("resnet20").augment == "crop-flip"
    assert models.recipe("my.module:net").epochs > 0
    with pytest.raises(ConfigError, match="unknown model 'resnet'"):
        models.recipe("resnet")


def test_default_input_shape():
    assert {n: models.default_in_shape(n) for n in models.names()} == {n: b.in_shape for n, b in BUILTINS.items()}
    assert models.default_in_shape("net.py:factory") is None
    with pytest.raises(ConfigError, match="did you mean 'resnet20'"):
        models.default_in_shape("resnet200")
