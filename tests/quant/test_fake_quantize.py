"""The module: modes, observers, state, and life inside a training step."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.quant import Affine, FakeQuantize, fake_quantize


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Layer(nn.Module):
    """A quantized convolution as surgery builds it: a quantizer for the input and one for the weight."""

    def __init__(self, learned: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.act = FakeQuantize.for_activation(8 if not learned else 4, learned=learned)
        self.weight = FakeQuantize.for_weight(8 if not learned else 4, learned=learned)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv._conv_forward(self.act(x), self.weight(self.conv.weight), self.conv.bias)


def test_observe_returns_the_input_itself() -> None:
    act = FakeQuantize.for_activation()
    x = randn(0, 10)
    assert act.mode == "observe"
    assert act(x) is x
    assert int(act.seen) == 1


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse"])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantizes_with_the_observed_range(observer: Any, axis: int | None) -> None:
    format = Affine(8, signed=False, symmetric=False, axis=axis)
    quantizer = FakeQuantize(format, observer)
    for seed in range(4):
        quantizer(randn(seed, 16, 5, 4))
    quantizer.freeze()
    scale, zero, qmin, qmax = quantizer.qparams()
    assert scale.shape == zero.shape == (() if axis is None else (5,))
    assert scale.dtype == torch.float32 and zero.dtype == torch.int32
    x = randn(9, 16, 5, 4)
    assert torch.equal(quantizer(x), fake_quantize(x, scale, zero, qmin, qmax, axis))


def test_ranges_of_the_observers() -> None:
    batches = [torch.cat([randn(seed, 9999), torch.tensor([80.0])]) for seed in range(3)]

    def highest(observer: Any, bits: int = 4) -> float:
        quantizer = FakeQuantize(Affine(bits, signed=False, symmetric=False), observer)
        for batch in batches:
            quantizer(batch)
        return float(quantizer.hi)

    batches[1] = batches[1] * 2
    assert highest("minmax") == 160.0
    assert highest("moving_average") == pytest.approx(320 / 3)
    assert highest("percentile") < 40
    assert 3 < highest("mse", bits=4) < 106


def test_mse_is_never_worse_than_minmax() -> None:
    w = randn(0, 8, 200) ** 3
    errors = {}
    for observer in ("minmax", "mse"):
        quantizer = FakeQuantize.for_weight(bits=3, observer=observer)  # type: ignore[arg-type]
        errors[observer] = (quantizer(w) - w).square().sum(1)
    assert (errors["mse"] <= errors["minmax"] * 1.0001).all()
    assert errors["mse"].sum() < 0.9 * errors["minmax"].sum()


def test_zero_point_is_zero_after_relu() -> None:
    act = FakeQuantize.for_activation()
    for seed in range(3):
        act(randn(seed, 50).relu())
    _, zero, qmin, qmax = act.qparams()
    assert (int(zero), qmin, qmax) == (0, 0, 255)
    assert act.quantize()(torch.zeros(1)).item() == 0.0


def test_weight_scale_follows_the_weight_until_frozen() -> None:
    weight = FakeQuantize.for_weight().eval()
    w = randn(0, 6, 4, 3, 3)
    weight(w)
    torch.testing.assert_close(weight.qparams()[0], w.abs().amax((1, 2, 3)) / 127)
    weight(w / 2)
    torch.testing.assert_close(weight.qparams()[0], w.abs().amax((1, 2, 3)) / 254)
    weight.freeze(w)
    weight(w * 10)
    torch.testing.assert_close(weight.qparams()[0], w.abs().amax((1, 2, 3)) / 127)
    assert weight(w * 10).abs().amax() <= w.abs().amax() * 1.0001


def test_activation_range_moves_in_training_only() -> None:
    act = FakeQuantize.for_activation()
    act(torch.tensor([0.0, 1.0]))
    act.quantize()
    act.eval()(torch.tensor([0.0, 9.0]))
    assert float(act.hi) == 1.0
    act.train()(torch.tensor([0.0, 9.0]))
    assert float(act.hi) == 5.0
    act.freeze()(torch.tensor([0.0, 99.0]))
    assert float(act.hi) == 5.0


def test_nothing_observed_is_an_error() -> None:
    for use in (FakeQuantize.freeze, FakeQuantize.qparams, lambda q: q.quantize().eval()(torch.ones(2))):
        with pytest.raises(ConfigError, match="calibration"):
            use(FakeQuantize.for_activation())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_activation_is_named(bad: float) -> None:
    with pytest.raises(ConfigError, match="finite"):
        FakeQuantize.for_activation()(torch.tensor([0.0, bad]))


def test_unknown_observer_suggests_a_known_one() -> None:
    with pytest.raises(ConfigError, match="'minmax'"):
        FakeQuantize(Affine(8), "min_max")  # type: ignore[arg-type]


@pytest.mark.parametrize("learned", [False, True])
def test_state_dict_and_deepcopy_carry_everything(learned: bool) -> None:
    layer, x = Layer(learned), randn(0, 2, 3, 8, 8)
    layer(x)
    layer.act.freeze()
    layer.weight.freeze()
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    fresh = Layer(learned)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.act.mode == fresh.weight.mode == "frozen"
    assert torch.equal(fresh(x), expected)
    assert all(value.dtype.is_floating_point or value.dtype != torch.float64 for value in fresh.state_dict().values())


def test_a_damaged_mode_is_refused() -> None:
    act = FakeQuantize.for_activation()
    act(torch.ones(2))
    state = act.state_dict()
    state["state"] = torch.tensor(9, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="state=9"):
        FakeQuantize.for_activation().load_state_dict(state)


def test_gradients_reach_weight_and_input_under_bf16_autocast() -> None:
    layer, x = Layer(), randn(0, 2, 3, 8, 8).requires_grad_()
    layer(x)
    layer.act.quantize()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    for grad in (layer.conv.weight.grad, x.grad):
        assert grad is not None and grad.dtype == torch.float32 and grad.abs().sum() > 0
    assert layer.act.scale.dtype == torch.float32


def test_used_twice_before_backward() -> None:
    layer, x = Layer(), randn(0, 2, 3, 8, 8)
    layer(x)
    layer.act.quantize()
    (layer(x).sum() + layer(x * 2).sum()).backward()
    assert layer.conv.weight.grad is not None


def test_quantization_aware_training_learns_the_step() -> None:
    """LSQ: training the step lowers the loss of a 2-bit weight below that of the min-max step."""
    target = randn(0, 4, 64)
    quantizer = FakeQuantize.for_weight(bits=2, learned=True)
    first = (quantizer(target) - target).square().mean().item()
    assert [name for name, _ in quantizer.named_parameters()] == ["scale"]
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (quantizer(target) - target).square().mean().backward()
        optimizer.step()
    last = (quantizer(target) - target).square().mean().item()
    assert last < 0.6 * first
    learned = quantizer.qparams()[0]
    quantizer.freeze(target)
    assert torch.equal(quantizer.qparams()[0], learned)
    assert not quantizer(target).requires_grad


def test_learned_step_gradient_is_divided_as_in_the_paper() -> None:
    x = randn(0, 6, 50)
    quantizer = FakeQuantize.for_activation(bits=3, learned=True)
    quantizer(x)
    quantizer.quantize()(x).sum().backward()
    scale, zero, qmin, qmax = quantizer.qparams()
    plain = scale.clone().requires_grad_()
    fake_quantize(x, plain, zero, qmin, qmax).sum().backward()
    assert plain.grad is not None and quantizer.scale.grad is not None
    torch.testing.assert_close(quantizer.scale.grad, plain.grad / (50 * 7) ** 0.5)


def test_exports_with_frozen_and_live_weight_scale() -> None:
    layer, x = Layer(), randn(0, 2, 3, 8, 8)
    layer(x)
    layer.act.freeze()
    layer.eval()
    for _ in range(2):
        exported = torch.export.export(layer, (x,)).module()
        assert torch.equal(exported(x), layer(x))
        layer.weight.freeze()


def test_empty_batches_pass() -> None:
    act = FakeQuantize.for_activation()
    assert act(torch.empty(0, 3)).shape == (0, 3)
    assert act.quantize()(torch.empty(0, 3)).shape == (0, 3)
