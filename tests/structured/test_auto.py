"""The faster way is taken, decided by clocks that tests bring."""

import copy

import pytest
import torch

from netfit.errors import ConfigError
from netfit.structured import ButterflyLinear, MonarchLinear, _auto


def layer_and_input():
    return MonarchLinear(32, 32, generator=torch.Generator().manual_seed(0)).eval(), torch.ones(4, 32)


def used(layer, x, monkeypatch, dense_wins):
    """Whether the whole weight was multiplied."""
    calls = []
    monkeypatch.setattr(_auto, "faster", lambda one, other: dense_wins)
    whole = torch.nn.functional.linear
    monkeypatch.setattr("netfit.structured._linear.F.linear", lambda *a: (calls.append(1), whole(*a))[1])
    with torch.no_grad():
        layer(x)
        layer(x)
    return len(calls)


def test_dense_where_dense_wins(monkeypatch):
    assert used(*layer_and_input(), monkeypatch, True) == 2


def test_factors_where_they_win(monkeypatch):
    layer, x = layer_and_input()
    assert used(layer, x, monkeypatch, False) == 0
    assert layer._dense._weight == (None, None)  # no memory for a matrix nobody multiplies by


def test_it_is_asked_once_for_each_size(monkeypatch):
    layer, _ = layer_and_input()
    asked = []
    monkeypatch.setattr(_auto, "faster", lambda one, other: bool(asked.append(1)))
    with torch.no_grad():
        for samples in (4, 5, 7, 8, 9, 4):
            layer(torch.ones(samples, 32))
    assert len(asked) == 2


def test_a_clear_case_is_not_measured(monkeypatch):
    asked = []
    monkeypatch.setattr(_auto, "faster", lambda one, other: bool(asked.append(1)))
    layer = ButterflyLinear(1024, 1024)
    with torch.no_grad():
        layer(torch.ones(32, 1024))
        assert not asked
        layer(torch.ones(1, 1024))  # one sample leaves most lanes of the native product empty
    assert len(asked) == 1


def test_a_weight_that_no_cache_holds_is_not_made(monkeypatch):
    monkeypatch.setattr(_auto, "_LARGE", 32 * 32 * 4 - 1)
    monkeypatch.setattr(_auto, "faster", lambda one, other: pytest.fail("asked"))
    layer, x = layer_and_input()
    with torch.no_grad():
        layer(x)


def test_the_short_way_sees_every_change(monkeypatch):
    """The whole weight is kept as long as parameters are what they were, and only for inference."""
    monkeypatch.setattr(_auto, "faster", lambda one, other: True)
    layer, x = layer_and_input()
    expected = torch.nn.functional.linear(x, layer.to_dense(), layer.bias)
    with torch.no_grad():
        layer(x)
        assert layer._dense.quick(x, layer.factors.parameters()) is not None
        torch.testing.assert_close(layer(x), expected)
        layer.factors[0].mul_(2)
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.to_dense(), layer.bias))
        layer.factors[0] = torch.nn.Parameter(torch.zeros_like(layer.factors[0]))
        assert torch.equal(layer(x), layer.bias.expand(4, -1))
        layer.bias.zero_()
        assert not layer(x).any()
        with pytest.raises(ConfigError, match="expected"):
            layer(torch.ones(4, 31))
        copied = copy.deepcopy(layer).double()
        assert copied(x.double()).dtype == torch.float64
    layer(x).sum().backward()
    assert layer.factors[1].grad is not None


def test_training_and_other_executions_never_ask(monkeypatch):
    asked = []
    monkeypatch.setattr(_auto, "faster", lambda one, other: bool(asked.append(1)))
    layer, x = layer_and_input()
    layer(x).sum().backward()
    with torch.no_grad():
        MonarchLinear(32, 32, execute="fused")(x)
    assert not asked


def test_faster_compares_the_least_times(monkeypatch):
    now = [0.0]

    def call(seconds):
        def run():
            now[0] += seconds

        return run

    monkeypatch.setattr(_auto.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(_auto.time, "process_time", lambda: now[0])
    assert _auto.faster(call(1e-3), call(2e-3))
    assert not _auto.faster(call(2e-3), call(1e-3))
