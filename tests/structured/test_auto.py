"""The faster way is taken, decided by clocks that tests bring."""

import torch

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
    with torch.no_grad():
        ButterflyLinear(1024, 1024)(torch.ones(2, 1024))
    assert not asked


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
