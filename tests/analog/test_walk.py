"""The walk: what it finds, that it repeats nothing, and that shortcuts change no number."""

import contextlib
import functools
import importlib.util
import types

import numpy as np
import pytest
import torch

from netfit.analog import AdditiveGaussian, Injection, MultiplicativeGaussian, Trainer, walk
from netfit.analog._levels import EVERYWHERE, Bench, Point
from netfit.analog._walk import Walk, WalkRow
from netfit.analog.diagnostics import (
    accuracies,
    binarization_gap,
    binarization_index,
    signal_power,
    snr_db,
    weight_before,
)  # fmt: skip
from netfit.errors import ConfigError, MissingExtraError
from netfit.surgery import Policy, Quantize, apply, calibrate

from .nets import Residual, perceptron


@pytest.fixture(scope="module")
def digits():
    from netfit.data import load

    return load("digits").tensors(), load("digits", "test").tensors()


@pytest.fixture(scope="module")
def trainer(digits):
    return Trainer(functools.partial(perceptron, widths=(32, 32)), digits[0], epochs=8, lr=5e-3, batch_size=64)


@pytest.fixture(scope="module")
def trained(trainer):
    return trainer(seed=0)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_prefix_reuse_changes_no_number(inplace, quantized):
    torch.manual_seed(0)
    x, y = torch.randn(50, 1, 6, 6), torch.randint(3, (50,))
    net = Residual(inplace).eval()
    if quantized:
        net = apply(net, Policy({"kind:conv2d": Quantize()}), x[:2])
        calibrate(net, [x])
    bench = Bench.of(net, AdditiveGaussian(1.0), (x, y))
    bench.batch_size = 20
    points = [Point(site, std, seed) for site in bench.injection.sites for std in (0.1, 1.0) for seed in (0, 1)]
    points.append(Point(EVERYWHERE, 0.3, 0))
    reused = bench.measure(points)
    bench.reuse = False
    assert bench.measure(points) == reused and len(set(reused)) > 3
    clean = (net(x).argmax(1) == y).double().mean().item()
    bench.reuse = True
    assert bench.clean() == pytest.approx(clean)


def test_prefix_reuse_computes_the_same_bits():
    from netfit.analog._prefix import PrefixCache

    x = torch.randn(7, 1, 6, 6)
    injection = Injection.everywhere(Residual().eval(), AdditiveGaussian(1.0), x)
    injection.set_std(0.0)
    cache = PrefixCache(injection.model, x)
    for site in injection.sites:
        with injection.only(site, 1.0):
            injection.draw_from(seed=1)
            fast = cache.outputs(site)
            injection.draw_from(seed=1)
            assert torch.equal(fast, injection.model(x))


def test_a_walk_of_a_trained_network(trained, digits):
    found = walk(trained, AdditiveGaussian(1.0), digits[1], seeds=2)
    assert [name for name, _ in found.sites] == ["input", "1", "2", "3", "4", "5"]
    assert found.chance == 0.1 and found.clean[0] > 0.9
    mus = {site: found.midpoint(site) for site in found.sites}
    for site, m in mus.items():
        again = accuracies(trained, AdditiveGaussian(1.0), digits[1], [m.std], at=site[0], seed=9)[0]
        assert again == pytest.approx((found.clean[0] + 0.1) / 2, abs=0.06)
        assert m.low < m.std < m.high
    assert mus[found.weakest()].std == min(m.std for m in mus.values())
    assert found.predicted() == pytest.approx(found.midpoint().std, rel=0.25)
    assert found.midpoint(trained=True) is None
    two, three = found.repeats
    assert sum(two["repeats"]) == 12 and two["tailored"] > two["uniform"] and three["uniform"] > two["uniform"]
    body = found.to_dict()
    assert body["weakest"] == "input" and len(body["rows"]) == len(found.rows)


def test_training_under_noise_pays_and_a_second_walk_measures_nothing(trainer, digits, tmp_path, monkeypatch):
    arguments = (trainer, AdditiveGaussian(1.0), digits[1])
    options = {"seeds": 1, "retrain": True, "at": "[35]", "folder": tmp_path, "largest": 300.0}
    calls = []
    monkeypatch.setattr("netfit.analog._trainer.fit", _stopping_after(5, calls))
    with pytest.raises(KeyboardInterrupt):
        walk(*arguments, **options)
    monkeypatch.setattr("netfit.analog._trainer.fit", _stopping_after(1000, calls))
    found = walk(*arguments, **options)
    assert len(calls) - 1 == len(set(calls)), "a finished training was repeated, or more than the killed one"
    for site in found.sites:
        bare, hard = found.midpoint(site), found.midpoint(site, trained=True)
        assert hard.std > 1.4 * bare.std
    heavy = max((r for r in found.rows if r.trained and r.accuracy > 0.5 and r.site == "3"), key=lambda r: r.std)
    assert heavy.weight > found.weights["3", 0] and found.grown(("3", 0)) > 1
    monkeypatch.setattr("netfit.analog._trainer.fit", _stopping_after(0, []))
    monkeypatch.setattr(Bench, "_accuracies", lambda self, points: [1 / 0 for _ in points])
    # The clean network comes from its finished checkpoint; everything else is read.
    assert walk(*arguments, **options).rows == found.rows


def _stopping_after(n, calls):
    """A fit that counts trainings that do something, and dies in the middle of one."""
    from netfit.train import fit

    def counted(model, data, **settings):
        if settings["checkpoint"] is None or not settings["checkpoint"].exists():
            calls.append(_stamp(model, settings))
            if len(calls) == n:
                raise KeyboardInterrupt
            if n == 0:
                raise AssertionError("trained again")
        return fit(model, data, **settings)

    return counted


def _stamp(model, settings):
    """Which training this is: seed, noisy sites and their schedule."""
    settings["on_epoch"](0, model)
    found = [m for m in model.modules() if type(m).__name__ == "_Conductor"]
    return settings["seed"], str([(c.schedule, [h.site for h in c.players]) for c in found])


def test_processes_give_the_same_walk(trainer, digits, tmp_path):
    few = digits[1][0][:100], digits[1][1][:100]
    quick = Trainer(trainer.build, (digits[0][0][:400], digits[0][1][:400]), epochs=4, lr=5e-3, batch_size=32)
    arguments, options = (quick, AdditiveGaussian(1.0), few), {"seeds": 2, "levels": [4.0], "retrain": True}
    alone = walk(*arguments, **options, at="3")
    many = walk(*arguments, **options, at="3", n_jobs=2, folder=tmp_path)
    assert many.rows == alone.rows and len(alone.rows) == 6
    lonely = Trainer(lambda: perceptron(), quick.data, epochs=1)
    with pytest.raises(ConfigError, match="cannot be sent to worker processes"):
        walk(lonely, *arguments[1:], **options, n_jobs=2)


class OneProcessCluster:
    """What a walk asks of Ray, in this process: work is done when its result is waited for."""

    def __init__(self):
        self.tasks = []

    def remote(self, **_):
        def decorate(function):
            def remote(*arguments):
                self.tasks.append((function, arguments))
                return len(self.tasks) - 1

            return types.SimpleNamespace(remote=remote)

        return decorate

    def put(self, value):
        return value

    def wait(self, tasks, num_returns):
        return [tasks[-1]], tasks[:-1]  # the last one is ready first

    def get(self, task):
        function, arguments = self.tasks[task]
        return function(*arguments)


def test_a_cluster_gives_the_same_walk_and_repeats_nothing(trainer, digits, tmp_path, monkeypatch):
    few = digits[1][0][:100], digits[1][1][:100]
    quick = Trainer(trainer.build, (digits[0][0][:400], digits[0][1][:400]), epochs=4, lr=5e-3, batch_size=32)
    options = {"seeds": 2, "levels": [4.0], "at": "3", "retrain": True}
    alone = walk(quick, AdditiveGaussian(1.0), few, **options)
    clusters = []

    @contextlib.contextmanager
    def cluster(address):
        clusters.append(OneProcessCluster())
        yield clusters[-1]

    monkeypatch.setattr("netfit.analog._workers.ray_cluster", cluster)
    seen = []
    many = walk(
        quick, AdditiveGaussian(1.0), few, **options, ray="auto", folder=tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert many.rows == alone.rows and seen[-1] == (4, 4)
    assert all(arguments[0].folder is None for _, arguments in clusters[0].tasks)  # no other machine has this folder
    again = walk(quick, AdditiveGaussian(1.0), few, **options, ray="auto", folder=tmp_path)
    assert again.rows == alone.rows and not clusters[1].tasks


absent = importlib.util.find_spec("ray") is None


@pytest.mark.skipif(not absent, reason="ray is installed here")
def test_without_ray_the_extra_is_named(trained, digits):
    with pytest.raises(MissingExtraError, match=r"pip install 'netfit\[ray\]'"):
        walk(trained, AdditiveGaussian(1.0), digits[1], ray="local")


@pytest.mark.skipif(absent, reason="ray is not installed: pip install 'netfit[ray]'")
@pytest.mark.filterwarnings("ignore")  # Ray's own, of which there are many
def test_ray_gives_the_same_walk(trained, digits, tmp_path):
    few, options = (digits[1][0][:100], digits[1][1][:100]), {"seeds": 1, "levels": [1.0, 4.0], "at": "3"}
    alone = walk(trained, AdditiveGaussian(1.0), few, **options)
    assert walk(trained, AdditiveGaussian(1.0), few, **options, ray="local", folder=tmp_path).rows == alone.rows
    with pytest.raises(ConfigError, match="'nowhere' matches no site"):
        walk(trained, AdditiveGaussian(1.0), few, **options | {"at": "nowhere"}, ray="local")


def test_ten_thousand_stored_points_are_summed_up_quickly():
    import time

    rng = np.random.default_rng(0)
    sites = [(f"layer{i}", 0) for i in range(100)]
    rows = [
        WalkRow(*site, seed, False, float(std), float(0.1 + 0.8 / (1 + std**2) + rng.normal(0, 0.005)))
        for site in sites
        for seed in range(5)
        for std in np.geomspace(0.1, 10, 20)
    ]
    found = Walk("additive_gaussian", (0.9,) * 5, 0.1, tuple(rows), dict.fromkeys(sites, 1.0), {})
    start = time.process_time()
    body = found.to_dict()
    assert len(rows) == 10_000 and time.process_time() - start < 8
    assert all(s["midpoint"]["std"] == pytest.approx(1.0, rel=0.05) for s in body["sites"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds and n_jobs must be at least 1, not 0"),
        ({"retrain": True}, "retrain needs a Trainer"),
        ({"at": "nowhere"}, "'nowhere' matches no site"),
    ],
)
def test_bad_walks(trained, digits, options, message):
    with pytest.raises(ConfigError, match=message):
        walk(trained, AdditiveGaussian(1.0), digits[1], **options)


def test_a_network_that_guesses_has_no_midpoint(digits):
    net = perceptron()
    with torch.no_grad():
        net[-1].weight.zero_()
    with pytest.raises(ConfigError, match="is not above chance"):
        walk(net, AdditiveGaussian(1.0), (digits[1][0], (digits[1][1] + 1) % 10 * 0 + 9))


def test_signal_power_and_weights(trained, digits):
    x = digits[1][0]
    power = signal_power(trained, x)
    assert power["1", 0] == pytest.approx(trained[1](x.flatten(1)).square().mean().item())
    assert power["input", 0] == pytest.approx(x.square().mean().item())
    assert weight_before(trained, ("input", 0), x[:2]) is None
    assert torch.equal(weight_before(trained, ("2", 0), x[:2]), trained[1].weight)
    assert torch.equal(weight_before(trained, ("3", 0), x[:2]), trained[3].weight)
    with pytest.raises(ConfigError, match="no signal-to-noise ratio"):
        snr_db(1.0, AdditiveGaussian(0.0))


def test_binarization_index():
    g = torch.Generator().manual_seed(0)
    assert binarization_index(torch.randn(200_000, generator=g)) == pytest.approx(2 / np.pi, rel=0.01)
    assert binarization_index(torch.rand(200_000, generator=g) - 0.5) == pytest.approx(0.75, rel=0.01)


def test_extreme_multiplicative_noise_can_be_trained_for_and_binarizes(digits):
    make = Trainer(functools.partial(perceptron, bn=True), digits[0], epochs=12, lr=5e-3, batch_size=64)
    noise, site = MultiplicativeGaussian(1.0), ("4", 0)  # the second linear layer; BatchNorm is behind it
    found = walk(make, noise, digits[1], seeds=1, at="4", levels=[1e10], retrain=True)
    ((bare,), (hard,)) = (found.curve(site, 0, trained)[1] for trained in (False, True))
    assert bare < 0.5 < 0.7 < hard
    assert found.rows[-1].gap <= 0.05 and found.to_dict()["sites"][0]["gap"] == found.rows[-1].gap
    with pytest.raises(ConfigError, match="no site '44'"):
        binarization_gap(make.fresh(seed=0), ("44", 0), digits[1], 1.0)
