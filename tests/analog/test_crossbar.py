"""Crossbars: the contract, the devices' moments, the exact law of read noise, drift, faults, converters."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netfit.analog.crossbar import PCM, Crossbar, Programmed, WanReRAM, device, device_names, program
from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantize, apply, calibrate, sites
from netfit.testing import TechniqueContract
from netfit.testing._net import small_input, small_net

DAY = 86_400.0
CELLS = 200_000


class TestContract(TechniqueContract):
    @pytest.fixture(params=["nandakumar2019", "wan2022"])
    def technique(self, request: pytest.FixtureRequest) -> Crossbar:
        return Crossbar(request.param, dac_bits=8, adc_bits=8, rows=32, stuck_off=0.01, read_std=0.01)


def layer(seed: int = 0, per_row: int = 60) -> tuple[nn.Module, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(per_row, 30, bias=False)).eval()
    net[0].weight.data = torch.randn(30, per_row, generator=draw)
    return net, torch.randn(16, per_row, generator=draw)


def read_at(cell: Any, target: float, t_s: float, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    targets = torch.full((CELLS,), target)
    return cell.read(targets, cell.program(targets, draw), t_s, draw)


def normal(n: int = 4001) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.linspace(-6, 6, n, dtype=torch.float64)
    p = torch.exp(-z * z / 2)
    return z, p / p.sum()


def pcm_moments(g: float, t_s: float) -> tuple[float, float]:
    """Mean and standard deviation by quadrature of the published formulas, written down a second time."""
    z, p = normal(601)
    r = g / 25
    programmed = (g + (0.26348 + 1.9650 * r - 1.1731 * r * r) * z).clamp_min(0)
    mu = min(max(0.0244 - 0.0155 * math.log(r), 0.049), 0.1)
    spread = min(max(-0.0059 - 0.0125 * math.log(r), 0.008), 0.045)
    left = ((t_s + 20) / 20) ** -(mu + spread * z).abs()
    q = (0.0088 / ((programmed / 25) ** 0.65).clamp_min(1e-3)).clamp_max(0.2)
    noise = q * math.sqrt(math.log((t_s + 20 + 250e-9) / 500e-9))
    mean = (programmed * p).sum() * (left * p).sum()  # the noise is symmetric and small beside 1
    second = (programmed**2 * (1 + noise**2) * p).sum() * (left**2 * p).sum()
    return float(mean), float((second - mean**2).sqrt())


@pytest.mark.parametrize("t_s", [0.0, 3600.0, DAY])
@pytest.mark.parametrize("g", [2.5, 5.0, 12.5, 20.0, 25.0])
def test_pcm_moments(g: float, t_s: float) -> None:
    found = read_at(PCM(), g, t_s)
    mean, std = pcm_moments(g, t_s)
    assert abs(float(found.mean()) - mean) < 0.01 * mean
    assert abs(float(found.std()) - std) < 0.01 * std


@pytest.mark.parametrize(("t_s", "expected"), [(0.0, 3.96), (DAY, 4.44), (2 * DAY, 5.02)])
def test_wan_moments(t_s: float, expected: float) -> None:
    """At half the range: 0.348 + 16.03/2 - 43.853/4 + 45.393/8 - 16.815/16 and so on."""
    c = WanReRAM.spread[t_s or 1.0]
    by_hand = sum(a * 0.5**i for i, a in enumerate(c))
    found = read_at(WanReRAM(), 20.0, t_s)
    assert abs(float(found.std()) - by_hand) < 0.01 * by_hand
    assert abs(float(found.mean()) - 20) < 0.2


def test_the_cell_of_a_chip_drifts_along_one_path() -> None:
    """Drift keeps a cell's exponent: after a day the order of cells is still mostly that after an hour."""
    hour, day = (read_at(PCM(), 20.0, t, seed=3) for t in (3600.0, DAY))
    assert float(torch.corrcoef(torch.stack((hour, day)))[0, 1]) > 0.8
    assert float(day.mean()) < float(hour.mean()) < 20


@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize("per", ["tensor", "column"])
def test_an_ideal_crossbar_computes_the_network(mapping: Any, per: Any) -> None:
    net, x = small_net(), small_input()
    chip = program(net, Crossbar("ideal", mapping, per), x)
    assert torch.allclose(chip.model(x), net(x), atol=1e-6)
    fine = program(net, Crossbar("ideal", mapping, per, dac_bits=14, adc_bits=16, rows=25), x)
    calibrate(fine.model, [x])
    assert torch.allclose(fine.model(x), net(x), atol=2e-3)


@given(st.integers(0, 2**31), st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=12)
def test_stuck_cells_have_their_rates(seed: int, off: float, on: float) -> None:
    net = nn.Sequential(nn.Linear(100, 100, bias=False)).eval()
    net[0].weight.data = torch.full((100, 100), 0.5)
    net[0].weight.data[0, 0] = 1.0  # 0.5 is half the range: stuck cells show
    chip = program(net, Crossbar("ideal", "offset", stuck_off=off, stuck_on=on, seed=seed), torch.ones(1, 100))
    (_, _, w), *_ = chip.weights()
    for value, rate in ((-1.0, off), (1.0, on)):
        share = float((w.flatten()[1:] - value).abs().lt(1e-5).float().mean())
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / 9999) + 1e-9


@pytest.mark.parametrize("adc", [{}, {"adc_bits": 16, "adc_range": 200.0, "rows": 17}])
@pytest.mark.parametrize("per", ["tensor", "column"])
def test_read_noise_has_the_law_of_one_draw_a_cell(adc: dict[str, Any], per: Any) -> None:
    net, x = layer()
    chip = program(net, Crossbar("ideal", per=per, read_std=0.02, **adc), x).model
    exact, w = net(x).detach(), net[0].weight.detach()
    torch.manual_seed(0)
    with torch.no_grad():
        fast = chip(x.repeat(800, 1)).unflatten(0, (800, -1)) - exact
    most = w.abs().amax(1, keepdim=True) if per == "column" else w.abs().amax()
    cells = [x @ (0.02 * most * (torch.randn_like(w) - torch.randn_like(w))).T for _ in range(800)]
    slow = torch.stack(cells)
    assert abs(float(fast.std() / slow.std()) - 1) < 0.02
    assert float(fast.mean().abs()) < 0.02 * float(slow.std())
    assert torch.allclose(fast.std(0), slow.std(0), rtol=0.15)


def test_read_noise_of_a_convolution_follows_each_patch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2)).eval()
    x = torch.rand(1, 4, 6, 6).repeat(1500, 1, 1, 1)
    whole, tiled = (
        program(net, Crossbar("ideal", read_std=0.05, **adc), x).model
        for adc in ({}, {"adc_bits": 16, "adc_range": 20.0, "rows": 5})
    )
    with torch.no_grad():
        a, b = (m(x).std(0) for m in (whole, tiled))
    assert torch.allclose(a, b, rtol=0.15)
    assert float(a[..., 0, 0].mean()) < 0.8 * float(a[..., 3, 3].mean())  # corners read fewer inputs


def test_drift_lowers_results_and_compensation_raises_them_again() -> None:
    net, x = small_net(), small_input()
    chip = program(net, Crossbar("nandakumar2019"), x)
    error = {}
    with torch.no_grad():
        for t_s in (0.0, DAY):
            chip.at(t_s)
            error[t_s] = float((chip.model(x) - net(x)).abs().mean())
        factors = chip.compensate(x)
        repaired = float((chip.model(x) - net(x)).abs().mean())
    assert all(1.2 < f < 1.8 for f in factors.values())
    assert repaired < 0.3 * error[DAY] and error[0.0] < 0.3 * error[DAY]
    assert all(hook.gain == 1 for hook in chip.at(DAY).layers.values())


def test_a_chip_is_its_seed_and_layers_draw_alone() -> None:
    net, x = small_net(), small_input()
    with torch.no_grad():
        same = [program(net, Crossbar(seed=4), x).model(x) for _ in range(2)]
        assert torch.equal(*same)
        assert not torch.equal(same[0], program(net, Crossbar(seed=5), x).model(x))
        alone = Programmed(apply(net, Policy({"head": Crossbar(seed=4)}), x).eval())
    all_layers = {name: w for name, _, w in program(net, Crossbar(seed=4), x).weights()}
    ((name, _, w),) = alone.weights()
    assert torch.equal(all_layers[name], w)


def test_the_chip_follows_the_weights_and_the_state_stays_clean() -> None:
    net, x = small_net(), small_input()
    chip = program(net, Crossbar("wan2022", t_s=DAY), x)
    assert set(chip.model.state_dict()) == set(net.state_dict())
    with torch.no_grad():
        before = chip.model(x)
        chip.model.load_state_dict({k: v.clone() for k, v in net.state_dict().items()})
        assert torch.equal(before, chip.model(x))
        chip.model.head.weight.mul_(-1)
        assert not torch.equal(before, chip.model(x))


def test_training_draws_new_chips_and_the_gradient_passes_straight_through() -> None:
    net, x = layer()
    chip = program(net, Crossbar("proportional:0.1"), x).model.train()
    torch.manual_seed(0)
    y = chip(x)
    assert not torch.equal(y, chip(x))
    (grad,) = torch.autograd.grad(y.sum(), chip[0].weight)
    assert torch.allclose(grad, x.sum(0).expand_as(grad))


def test_it_stands_behind_quantization() -> None:
    net, x = small_net(), small_input()
    both = apply(net, Policy({"*": Crossbar("ideal"), "head": [Quantize(weight_bits=2, act_bits=8)]}), x).eval()
    calibrate(both, [x])
    only = apply(net, Policy({"head": Quantize(weight_bits=2, act_bits=8)}), x).eval()
    calibrate(only, [x])
    assert torch.allclose(both(x), only(x), atol=1e-5)
    assert [s.kind for s in sites(both, x)] == [s.kind for s in sites(net, x)]


@pytest.mark.parametrize("name", ["ideal", "milo2021", "inverse:0.003", "independent:0.02"])
def test_every_device_keeps_a_network_near_itself(name: str) -> None:
    net, x = small_net(), small_input()
    with torch.no_grad():
        assert float((program(net, Crossbar(name), x).model(x) - net(x)).abs().mean()) < 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "nandakumar"}, "did you mean 'nandakumar2019'"),
        ({"device": "proportional:x"}, "proportional:0.05"),
        ({"mapping": "ofset"}, "did you mean 'offset'"),
        ({"stuck_off": 1.2}, "stuck_off=1.2"),
        ({"stuck_off": 0.6, "stuck_on": 0.5}, "more than all cells"),
        ({"t_s": -1.0}, "t=-1.0 s"),
        ({"device": "wan2022", "t_s": 3600.0}, "measured are 1, 86400 and 172800"),
        ({"dac_bits": 1}, "dac_bits=1"),
        ({"adc_range": 1.0}, "beside adc_bits"),
        ({"rows": 0}, "rows=0"),
        ({"read_std": float("nan")}, "read_std=nan"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_outside_their_range(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Crossbar(**change)


def test_bad_use_is_named() -> None:
    net, x = layer()
    with pytest.raises(ConfigError, match="on a crossbar"):
        Programmed(net)
    with pytest.raises(ConfigError, match="no linear layer"):
        program(nn.Sequential(nn.ReLU()), Crossbar(), x)
    chip = program(net, Crossbar("wan2022"), x)
    with pytest.raises(ConfigError, match="t=60 s of the wan2022 device"):
        chip.at(60.0)
    assert set(device_names()) >= {"ideal", "wan2022"} and device("wan2022") == WanReRAM()
