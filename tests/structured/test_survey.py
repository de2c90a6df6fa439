"""The survey's choices, with clocks that tests bring."""

import pytest
import torch
from torch import nn

from netfit.errors import ConfigError
from netfit.structured import Butterfly, LowRank, Monarch, MonarchLinear, survey
from netfit.surgery import apply
from netfit.targets import Measurement, Timing


def clock(speedups, calls=None):
    """A `measure` that finds these speed-ups, in the order of the candidates, over any dense layer."""

    def measure(candidates, *, yardstick, **settings):
        timings = {}
        for name, call in candidates.items():
            call()
            s = 1.0 if name == yardstick else speedups[int(name)]
            timings[name] = Timing(1e-3 / s, 1e-3 / s, 1e-3 / s, 1 / s, 0.99 / s, 1.01 / s, 8, False)
        if calls is not None:
            calls.append(settings)
        return Measurement(yardstick, 1, 8, 0, timings)

    return measure


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))


def test_the_most_faithful_of_the_fast_ones_is_taken(monkeypatch):
    monkeypatch.setattr(survey, "measure", clock([3.0, 2.0, 4.0, 1.5, 2.5]))
    net = network()
    net[2].weight.data.copy_(MonarchLinear(256, 256).to_dense().detach())
    layers = survey.survey(net, torch.ones(4, 256), min_speedup=1.7)
    assert [layer.name for layer in layers] == ["0", "2"]
    for layer in layers:
        fast = [c for c in layer.candidates if c.speedup >= 1.8]
        assert layer.choice in fast and layer.choice.rel_error == min(c.rel_error for c in fast)
        assert layer.input == (4, 256) and layer.params == 256 * 256
    planted = layers[1].candidates[0]
    assert planted.technique == Monarch() and planted.rel_error < 1e-5 < planted.low_rank_error
    assert layers[1].choice == planted
    new = apply(net, survey.chosen_policy(layers), torch.ones(4, 256))
    assert torch.allclose(new[2](torch.ones(1, 256)), net[2](torch.ones(1, 256)), atol=1e-4)


def test_dense_stays_where_nothing_is_surely_faster(monkeypatch):
    monkeypatch.setattr(survey, "measure", clock([1.105] * 5))
    layers = survey.survey(network(), torch.ones(4, 256), min_speedup=1.1)
    assert all(layer.choice is None for layer in layers)
    assert not survey.chosen_policy(layers)


def test_only_smaller_forms_are_tried_and_their_figures_are_true(monkeypatch):
    monkeypatch.setattr(survey, "measure", clock([2.0] * 5))
    net = nn.Sequential(nn.Linear(256, 10), nn.Unflatten(1, (10, 1, 1)), nn.Conv2d(10, 20, 1, groups=10))
    (layer,) = survey.survey(net, torch.ones(2, 256))
    kinds = [type(c.technique) for c in layer.candidates]
    assert Butterfly not in kinds and LowRank in kinds
    for c in layer.candidates:
        assert c.params < 2560 and 0 < c.rel_error <= 1
        assert c.rel_error >= c.low_rank_error - 1e-6 or c.technique.name != "low_rank"
        assert c.lo <= c.speedup <= c.hi


def test_convolutions_and_shared_layers(monkeypatch):
    monkeypatch.setattr(survey, "measure", clock([2.0] * 3))
    conv = nn.Conv2d(16, 16, 3, padding=1)
    layers = survey.survey(nn.Sequential(conv, nn.ReLU(), conv), torch.ones(1, 16, 6, 6))
    assert [(layer.name, layer.kind) for layer in layers] == [("0", "conv2d")]
    assert {c.technique.name for c in layers[0].candidates} == {"monarch", "low_rank"}


def test_settings_reach_the_measurement(monkeypatch):
    calls = []
    monkeypatch.setattr(survey, "measure", clock([2.0] * 5, calls))
    survey.survey(network(), torch.ones(4, 256), budget_s=0.25, threads=2, seed=3)
    assert calls == [{"budget_s": 0.25, "threads": 2, "seed": 3}] * 2


def test_a_sweep_has_a_row_for_each_size():
    rows = survey.sweep_sizes([16, 200], batch=4, budget_s=0.02)
    assert [row["n"] for row in rows] == [16, 200]
    assert {"butterfly", "monarch", "low_rank"} <= set(rows[0])
    assert all(value > 0 for row in rows for value in row.values())
    (trained,) = survey.sweep_sizes([16], batch=4, train=True, budget_s=0.02)
    assert trained["monarch"] > 0


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        survey.survey(network(), torch.ones(1, 256), runtime="openvinu")
    with pytest.raises(ConfigError, match="min_speedup=0"):
        survey.survey(network(), torch.ones(1, 256), min_speedup=0)
    with pytest.raises(ConfigError, match="no linear layer"):
        survey.survey(nn.ReLU(), torch.ones(1, 256))
