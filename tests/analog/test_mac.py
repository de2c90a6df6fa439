"""Layers on a saturating array: the contract, the model against its definition, orders, and what is refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netfit.analog.mac import SaturatingMAC, balanced_order, brainscales2, order_rows
from netfit.errors import ConfigError, UnsupportedLayerError
from netfit.surgery import Policy, Quantize, apply, calibrate, sites
from netfit.testing import TechniqueContract

FINE: dict[str, Any] = {"noise_std": 0.0, "input_bits": 12, "weight_bits": 12, "adc_bits": 16}


class TestContract(TechniqueContract):
    @pytest.fixture
    def technique(self) -> SaturatingMAC:
        return SaturatingMAC(noise_std=0.5, column_gain_std=0.02)


def layered(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    return net, torch.rand(64, 300)


def on_array(net: nn.Module, x: torch.Tensor, mac: SaturatingMAC) -> nn.Module:
    new = apply(net, Policy({"*": mac}), x)
    calibrate(new, [x])
    return new.eval()


def mean_error(analog: nn.Module, net: nn.Module, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((analog(x) - net(x)).abs().mean())


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 3, padding=1, groups=2),
        nn.Conv2d(6, 4, (3, 2), stride=(2, 1), dilation=(1, 2), bias=False),
        nn.Conv2d(6, 6, 3, padding="same", groups=6),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_a_fine_array_computes_the_convolution(conv: nn.Conv2d) -> None:
    torch.manual_seed(0)  # pytest made the layers when it collected them
    conv.reset_parameters()
    x = torch.randn(2, 6, 9, 10, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(conv).eval()
    analog = on_array(net, x, SaturatingMAC(**FINE, ordered=False))
    assert torch.allclose(analog(x), net(x), atol=0.01)


def test_the_result_is_the_definition_on_integer_codes() -> None:
    """All three scales given: 5-bit inputs, weights of 63 steps, gain 0.002 per send, tiles summed digitally."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 32, (16, 200), generator=draw).float()
    layer = nn.Linear(200, 12, bias=False)
    w = torch.randint(-63, 64, (12, 200), generator=draw).float()
    layer.weight.data = w
    mac = brainscales2(5, input_scale=1.0, weight_scale=1.0, noise_std=0.0)
    analog = on_array(nn.Sequential(layer), x, mac)
    total = torch.zeros(16, 12)
    for tile in (slice(0, 128), slice(128, 200)):
        v = torch.zeros(16, 12)
        for k in range(*tile.indices(200)):
            v = (v + 0.01 * x[:, k, None] * w[:, k]).clamp(-128, 127)
        total += v.round()
    # one unit of the sum is 1 / gain products of codes; rounding at a tie may fall to either side
    assert ((analog(x) * 0.01 - total.clamp(-128, 127)).abs() < 1.01).all()
    assert ((analog(x) * 0.01 - total.clamp(-128, 127)).abs() > 0.01).float().mean() < 0.02


def test_noise_is_that_of_the_array_and_follows_torch_s_seed() -> None:
    net, x = layered()
    exact, noisy = (on_array(net, x, SaturatingMAC(noise_std=std, adc_bits=16)) for std in (0.0, 2.0))
    torch.manual_seed(3)
    first = noisy(x)
    assert not torch.equal(first, noisy(x))
    torch.manual_seed(3)
    assert torch.equal(first, noisy(x))
    assert torch.equal(exact(x), exact(x))


def test_noise_of_two_standard_deviations_reaches_the_output() -> None:
    net = nn.Sequential(nn.Linear(100, 50, bias=False)).eval()
    x = torch.rand(400, 100, generator=torch.Generator().manual_seed(0))
    settings = {"ordered": False, "input_scale": 1 / 31, "gain": 0.01, "adc_bits": 16, "lo": -1e4, "hi": 1e4}
    exact, noisy = (on_array(net, x, SaturatingMAC(noise_std=std, **settings)) for std in (0.0, 2.0))
    unit = (1 / 31) * float(net[0].weight.detach().abs().max()) / 63 / 0.01
    torch.manual_seed(0)
    with torch.no_grad():
        error = (noisy(x) - exact(x)).std() / unit
    assert abs(float(error) - 2.0) < 0.05


def test_order_changes_the_result_and_a_balanced_one_repairs_it() -> None:
    """Rows sorted by sign drive the sum to the rail; the balanced order keeps it near its share of the total."""
    torch.manual_seed(2)
    layer = nn.Linear(120, 20, bias=False)
    layer.weight.data = layer.weight.data.sort(1).values
    net, x = nn.Sequential(layer).eval(), torch.rand(128, 120)
    mac = SaturatingMAC(noise_std=0.0)
    error = {}
    for method in ("natural", "random", "balanced"):
        analog = on_array(net, x, mac)
        order_rows(analog, [x], method, seed=5)
        error[method] = mean_error(analog, net, x)
    assert error["balanced"] < 0.2 * error["natural"]
    assert error["balanced"] <= 1.2 * error["random"]
    unordered = on_array(net, x, SaturatingMAC(noise_std=0.0, ordered=False))
    assert error["balanced"] < 1.5 * mean_error(unordered, net, x) + 1e-3


@given(st.integers(1, 24), st.integers(0, 2**31))
def test_balanced_order_is_a_permutation_and_greedy(k: int, seed: int) -> None:
    steps = torch.randn(k, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    order = balanced_order(steps @ steps.T)
    assert sorted(order.tolist()) == list(range(k))
    prefix, left = torch.zeros(7, dtype=torch.float64), set(range(k))
    for m, chosen in enumerate(order.tolist()):
        target = (m + 1) / k * steps.sum(0)
        distance = {c: float((prefix + steps[c] - target).square().sum()) for c in left}
        assert distance[chosen] <= min(distance.values()) + 1e-9
        prefix, left = prefix + steps[chosen], left - {chosen}


def test_orders_are_seeded_given_and_kept_with_the_state() -> None:
    net, x = layered()
    analog = on_array(net, x, SaturatingMAC(noise_std=0.0))
    first, again = order_rows(analog, method="random", seed=1), order_rows(analog, method="random", seed=1)
    assert all(torch.equal(first[n], again[n]) for n in first)
    turned = {"0": torch.arange(299, -1, -1)}
    assert torch.equal(order_rows(analog, method=turned)["0"], turned["0"][None])
    other = apply(net, Policy({"*": SaturatingMAC(noise_std=0.0)}), x).eval()
    other.load_state_dict(analog.state_dict())
    assert torch.equal(other(x), analog(x))


def test_columns_come_back_after_the_width_of_the_array() -> None:
    net = nn.Sequential(nn.Linear(10, 12, bias=False)).eval()
    net[0].weight.data = torch.ones(12, 10)
    x = torch.rand(8, 10, generator=torch.Generator().manual_seed(0))
    y = on_array(net, x, SaturatingMAC(cols=4, column_gain_std=0.1, noise_std=0.0, adc_bits=16))(x)
    assert torch.equal(y[:, :4], y[:, 4:8]) and torch.equal(y[:, :4], y[:, 8:])
    assert len(set(y[0, :4].tolist())) == 4


def test_it_is_one_call_to_a_watcher_and_keeps_quantized_weights() -> None:
    net, x = layered()
    both = apply(net, Policy({"*": SaturatingMAC(noise_std=0.0), "0": [Quantize(weight_bits=4, act_bits=8)]}), x)
    calibrate(both, [x])
    assert [s.kind for s in sites(both, x)] == ["input", "linear", "relu", "linear"]
    assert set(net.state_dict()) <= set(both.state_dict())


def test_training_on_the_array_lowers_its_loss() -> None:
    net, x = layered()
    y = (x @ torch.randn(300, 5, generator=torch.Generator().manual_seed(4))).argmax(1)
    analog = on_array(net, x, SaturatingMAC())
    optimizer, losses = torch.optim.Adam(analog.parameters(), 2e-3), []
    for _ in range(40):
        loss = F.cross_entropy(analog(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_it_exports() -> None:
    net, x = layered()
    analog = on_array(net, x, SaturatingMAC(noise_std=0.0))
    exported = torch.export.export(analog, (x,)).module()
    assert torch.allclose(exported(x), analog(x), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 0}, "rows=0"),
        ({"lo": 1.0}, "lo=1.0 and hi=127.0"),
        ({"gain": 0.0}, "gain=0.0"),
        ({"noise_std": float("nan")}, "noise_std=nan"),
        ({"leak": 1.5}, "leak=1.5"),
        ({"weight_bits": 1}, "weight_bits=1"),
        ({"column_gain_std": -0.1}, "column_gain_std=-0.1"),
    ],
)
def test_settings_outside_their_range(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SaturatingMAC(**change)


def test_bad_use_is_named() -> None:
    net, x = layered()
    with pytest.raises(ConfigError, match=r"0: numbers from .* do not fit a converter that reaches 0.32"):
        on_array(net, x, SaturatingMAC(input_scale=0.01))
    with pytest.raises(ConfigError, match="no layer of Sequential"):
        order_rows(net, [x])
    waiting = apply(net, Policy({"*": SaturatingMAC()}), x)
    with pytest.raises(ConfigError, match="'0' waits for its ranges"):
        order_rows(waiting, [x])
    analog = on_array(net, x, SaturatingMAC())
    with pytest.raises(ConfigError, match="at least one batch"):
        order_rows(analog)
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        order_rows(analog, [x], "balancd")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'0', \(1, 300\), is no permutation"):
        order_rows(analog, method={"0": torch.zeros(300, dtype=torch.int64)})
    with pytest.raises(UnsupportedLayerError, match="handles conv2d, linear"):
        apply(nn.Sequential(nn.Conv1d(1, 1, 1)), Policy({"*": SaturatingMAC()}), torch.ones(1, 1, 4))
    with pytest.raises(ConfigError, match="num_sends=0"):
        brainscales2(0)
