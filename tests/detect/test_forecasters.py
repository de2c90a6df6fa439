"""Forecasters: sizes of the papers, training, streaming, restart, and the policy that makes them smaller."""

import numpy as np
import pytest
import torch
from torch import nn

from netfit import surgery
from netfit.detect import SPOT, Forecaster, Frame, HybridDetector, InformerForecaster, SemiSupervisedMSE, TranAD
from netfit.detect._cost import network_cost
from netfit.errors import ConfigError


def waves(rows=500, groups=2):
    rng = np.random.default_rng(0)
    names, columns = [], []
    for g in range(groups):
        load = 5 + np.sin(np.arange(rows) / 7 + g)
        for n in range(5):
            names.append(f"rack=r{g},node=n{n}")
            columns.append(load + rng.normal(0, 0.05, rows))
    return Frame(np.arange(rows, dtype=float), names, np.stack(columns, 1))


def test_sizes_are_those_of_the_paper():
    assert sum(p.numel() for p in TranAD(102).parameters()) == 936_450
    informer = InformerForecaster(102, 17, 8, width=576, hidden=2944, heads=4, encoder_layers=1, decoder_layers=4)
    assert sum(p.numel() for p in informer.parameters()) == pytest.approx(29.4e6, rel=0.01)


def test_cost_is_what_counting_by_hand_gives():
    features, width, window = 6, 12, 10
    attention_self = 4 * window * width**2 + 2 * window**2 * width
    network = 2 * window * width * 64
    encoder = attention_self + network
    one = 4 * width**2 + 2 * width  # self-attention of a single token
    cross = 2 * width**2 + 2 * window * width**2 + 2 * window * width
    decoder = one + cross + 2 * width * 64
    by_hand = 2 * (encoder + decoder + width * features)
    cost = network_cost(Forecaster(), features)
    assert cost.flops == pytest.approx(2 * by_hand, rel=0.01)
    assert cost.parameters == sum(p.numel() for p in TranAD(features).parameters())


def test_cost_of_an_informer_is_what_counting_by_hand_gives():
    f, past, known, width, hidden = 6, 8, 5, 16, 32  # label 4 and one place to fill
    embedding = (past + known) * 3 * f * width
    encoder = 4 * past * width**2 + 2 * past**2 * width + 2 * past * width * hidden
    own = 4 * known * width**2 + 2 * known**2 * width
    cross = 2 * (known + past) * width**2 + 2 * known * past * width
    by_hand = embedding + encoder + own + cross + 2 * known * width * hidden + width * f
    settings = Forecaster(kind="informer", window=past + 1, sizes={"label": 4, "width": width, "hidden": hidden})
    assert network_cost(settings, f).flops == pytest.approx(2 * by_hand, rel=0.01)


@pytest.mark.parametrize("kind", ["tranad", "informer"])
def test_a_trained_forecaster_finds_what_leaves_the_pattern(kind, tmp_path):
    frame = waves()
    settings = Forecaster(kind=kind, epochs=2, batch_size=32, lr=3e-3)
    made = HybridDetector("rack", temporal=settings, threshold=SPOT(warmup=100)).fit(frame.rows(slice(0, 400)))
    frame.values[440:, 5:] = 8.0  # a whole rack stands still: no channel differs from its peers
    rest = frame.rows(slice(400, 500))
    scores = made.anomaly_scores(rest).values[:, 0]
    assert scores[:35].max() < scores[42:60].max()
    want = [(a.kind, a.start) for a in made.detect(rest) if a.end is None]
    assert ("temporal", 440.0) in want
    made = HybridDetector("rack", temporal=settings, threshold=SPOT(warmup=100)).fit(frame.rows(slice(0, 400)))
    made.detect(frame.rows(slice(400, 430)))
    made.save(tmp_path / "s")
    again = HybridDetector.load(tmp_path / "s").detect(frame.rows(slice(430, 500)))
    assert ("temporal", 440.0) in [(a.kind, a.start) for a in again]


def test_the_same_seed_gives_the_same_weights():
    rows = np.random.default_rng(0).random((120, 4))
    settings = Forecaster(kind="informer", window=9, epochs=1, batch_size=32)
    first, second = (settings.train(rows, None, seed=3).weights for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_labels_push_the_error_of_abnormal_windows_up():
    rng = np.random.default_rng(0)
    rows, y = rng.random((600, 3)) * 0.2, np.zeros(600)
    rows[300:360], y[300:360] = rows[300:360] + 0.7, 1
    errors = {}
    for mu in (None, 1.0):
        settings = Forecaster(kind="informer", window=9, epochs=3, batch_size=32, lr=3e-3, mu=mu)
        model = settings.train(rows, y, seed=0).start(3)
        errors[mu] = model.rows(rows, np.ones(rows.shape, bool)).score
    abnormal = slice(310, 360)
    assert np.nanmean(errors[1.0][abnormal]) > 2 * np.nanmean(errors[None][abnormal])


def test_semi_supervised_loss_by_hand():
    error = torch.tensor([2.0])
    got = SemiSupervisedMSE(0.5)(error, torch.tensor([0.25]))
    assert float(got) == pytest.approx(0.75 * 2 + 0.5 * 0.25 * np.tanh(0.5), rel=1e-5)
    with pytest.raises(ConfigError, match="mu=0"):
        SemiSupervisedMSE(0)


def test_the_policy_of_every_network_compresses_a_forecaster():
    torch.manual_seed(0)
    network, x = TranAD(6).eval(), torch.rand(8, 10, 6)
    names = [site.name for site in surgery.sites(network, x)]
    assert {"encoder.attention.query", "decoders.1.network.0", "out"} <= set(names)
    policy = surgery.Policy({"encoder.*": surgery.Quantize(), "decoders.*.network.*": surgery.Quantize()})
    small = surgery.apply(network, policy, x)
    assert not torch.equal(small(x)[1], network(x)[1])
    torch.testing.assert_close(small(x)[1], network(x)[1], atol=0.05, rtol=0.05)
    rows = np.random.default_rng(0).random((150, 6))
    model = Forecaster(epochs=1, batch_size=32).train(rows, None, 0).start(6)
    plain = model.rows(rows, np.ones(rows.shape, bool)).score
    model.compress(policy, rows)
    assert np.corrcoef(plain[-100:], model.rows(rows, np.ones(rows.shape, bool)).score[-100:])[0, 1] > 0.9


def test_a_policy_makes_the_forecaster_inside_a_detector_smaller(tmp_path):
    rows = np.random.default_rng(0).random((200, 6))
    detector = HybridDetector(temporal=Forecaster(epochs=1, batch_size=32))
    policy = surgery.Policy({"kind:linear": surgery.Quantize()})
    with pytest.raises(ConfigError, match="no forecaster to compress"):
        detector.compress(policy, rows)
    with pytest.raises(ConfigError, match="no forecaster to compress"):
        HybridDetector().fit(rows).compress(policy, rows)
    plain = detector.fit(rows).score_samples(rows)
    small = detector.compress(policy, rows).score_samples(rows)
    assert not np.array_equal(plain, small)
    assert np.corrcoef(plain[-90:], small[-90:])[0, 1] > 0.9
    detector.save(tmp_path / "small")
    np.testing.assert_array_equal(HybridDetector.load(tmp_path / "small").score_samples(rows), small)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Forecaster(kind="lstm"), "kind='lstm'"),
        (lambda: Forecaster(window=1), "window=1"),
        (lambda: Forecaster(mu=-1.0), "mu=-1.0"),
        (lambda: Forecaster(sizes={"depth": 3}).build(4), "sizes={'depth': 3} of tranad"),
        (lambda: InformerForecaster(4, width=10, heads=4), "heads share the width"),
        (lambda: Forecaster().train(np.zeros((20, 3)), None, 0), "20 rows train no forecaster"),
        (lambda: Forecaster(mu=0.1).train(np.zeros((200, 3)), None, 0), "give y"),
        (lambda: Forecaster(mu=0.1).train(np.zeros((200, 3)), np.zeros(3), 0), r"labels of \(3,\)"),
    ],
)
def test_settings_out_of_range_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_networks_are_modules():
    assert issubclass(TranAD, nn.Module) and issubclass(InformerForecaster, nn.Module)
