"""One-dimensional DBSCAN: exactly scikit-learn's, and the native code exactly its reference."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from netfit import data
from netfit.errors import DataNotFound
from netfit.kernels import peers, toolchain

values = st.lists(
    st.one_of(st.integers(-12, 12).map(float), st.floats(-12, 12).map(lambda v: round(v, 2)), st.just(float("nan"))),
    max_size=40,
)
needs_compiler = pytest.mark.skipif(toolchain() is None, reason="no C compiler")


def by_sklearn(x, eps, min_samples):
    out = np.full(len(x), -1)
    there = np.isfinite(x)
    if there.any():
        out[there] = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(x[there, None])
    return out


def same_partition(a, b):
    """Whether two labellings differ in the names of clusters only."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs}) and ((a < 0) == (b < 0)).all()


def near(x, eps):
    there = x[np.isfinite(x)]
    return (np.abs(np.abs(there[:, None] - there) - eps) < 1e-9).any()


@given(values, st.sampled_from([0.3001, 1.5001, 3.0001]), st.integers(1, 6))
def test_labels_are_those_of_scikit_learn(row, eps, min_samples):
    x = np.array(row, float)
    assert same_partition(peers.labels(x, eps, min_samples), by_sklearn(x, eps, min_samples))


@pytest.mark.parametrize("rows", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_rows_equal_scikit_learn(rows):
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(rows):
        n = int(rng.integers(0, 25))
        x = rng.choice([rng.normal(size=n) * 3, rng.integers(-4, 5, n).astype(float), np.full(n, 2.0)])
        x = np.where(rng.random(n) < 0.2, np.nan, x)
        eps = float(rng.choice([0.31, 0.9, 2.2]))
        if near(x, eps):
            continue
        compared += 1
        assert same_partition(peers.labels(x, eps, 4), by_sklearn(x, eps, 4))
    assert compared > 0.99 * rows


@pytest.mark.parametrize("step", [200, pytest.param(1, marks=pytest.mark.slow)])
def test_rows_of_real_servers_equal_scikit_learn(step):
    try:
        servers = data.series("asd")
    except DataNotFound as e:
        pytest.skip(str(e))
    rows = min(len(s.test) for s in servers.values())
    x = np.stack([s.test[:rows:step] for s in servers.values()], axis=2).astype(float)  # (rows, metrics, servers)
    eps, compared = 0.3 * x.std(axis=(0, 2)) + 1e-6, 0
    for row in x:
        for values, distance in zip(row, eps, strict=True):
            if not near(values, distance):
                compared += 1
                assert same_partition(peers.labels(values, distance, 4), by_sklearn(values, distance, 4))
    assert compared > 0.99 * x.shape[0] * x.shape[1]


def run(monkeypatch, native, x, source, offset, eps, settings, cuts=()):
    if not native:
        monkeypatch.setenv("NETFIT_CC", "none")
    state = peers.PeerState(offset)
    found = [peers.rows(part, source, eps, settings, state, dense=True) for part in np.split(x, cuts)]
    monkeypatch.delenv("NETFIT_CC", raising=False)
    return found, state


def stream(rng, rows, slots):
    x = np.cumsum(rng.normal(size=(rows, slots)) * 0.1, 0) + rng.normal(size=(rows, slots))
    x[:, rng.integers(slots)] += np.where(np.arange(rows) > rows // 2, 40, 0)
    x[:, 0] = np.where(np.arange(rows) > rows // 3, 0.0, x[:, 0] + 50)
    return np.where(rng.random(x.shape) < 0.1, np.nan, x)


@needs_compiler
@pytest.mark.parametrize("fixed", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_native_code_agrees_with_the_reference_bit_for_bit(monkeypatch, fixed, seed):
    rng = np.random.default_rng(seed)
    offset = np.array([0, 12, 12, 13, 40])  # an empty group and one of a single channel
    x, source = stream(rng, 60, 40), rng.permutation(40)
    source[rng.integers(40)] = -1
    settings = peers.PeerSettings(memory=20, lifetime=3, watch_absence=True)
    eps = np.full(4, fixed)
    (native,), after = run(monkeypatch, True, x, source, offset, eps, settings)
    (slow,), other = run(monkeypatch, False, x, source, offset, eps, settings)
    for name in ("median", "std", "count", "group_score", "score", "z"):
        np.testing.assert_array_equal(getattr(native, name), getattr(slow, name), name)
    assert len(native.events) > 10
    for name in peers.EVENT.names:
        np.testing.assert_array_equal(native.events[name], slow.events[name], name)
    for name in after.channel.keys() - {"order", "peer_order"}:
        np.testing.assert_array_equal(after.channel[name], other.channel[name], name)


@pytest.mark.parametrize("cuts", [(1,), (10, 11, 40), tuple(range(1, 60))])
def test_blocks_do_not_show(monkeypatch, cuts):
    rng = np.random.default_rng(9)
    x, offset, eps = stream(rng, 60, 30), np.array([0, 14, 30]), np.zeros(2)
    (whole,), _ = run(monkeypatch, True, x, np.arange(30), offset, eps, peers.PeerSettings())
    parts, _ = run(monkeypatch, True, x, np.arange(30), offset, eps, peers.PeerSettings(), cuts)
    np.testing.assert_array_equal(whole.score, np.concatenate([p.score for p in parts]))
    assert len(whole.events) == sum(len(p.events) for p in parts) > 0


def test_what_stands_out_is_found_where_and_when_it_does():
    rng = np.random.default_rng(1)
    x = rng.normal(10, 0.1, size=(50, 20))
    x[30:40, 7] = 25
    x[42:, 3] = 0
    state = peers.PeerState(np.array([0, 20]))
    found = peers.rows(x, np.arange(20), np.zeros(1), peers.PeerSettings(), state)
    seen = {(int(e["slot"]), int(e["kind"])): int(e["row"]) - int(e["run"]) + 1 for e in found.events}
    assert seen == {(7, 0): 30, (3, 1): 42}
    assert ((found.group_score[:, 0] > 1) == np.isin(np.arange(50), [*range(33, 40), *range(45, 50)])).all()
    event = found.events[0]
    assert event["x"] == 25 and abs(event["expected"] - 10) < 0.2


def test_what_keeps_off_its_peers_for_long_is_found_and_what_returns_is_not():
    rng = np.random.default_rng(2)
    x = rng.normal(10, 0.1, size=(400, 20))
    x[200:230, 7] += 0.6  # too little to be an outlier in any row
    x[300:303, 9] += 0.6
    found = [
        peers.rows(x, np.arange(20), np.zeros(1), peers.PeerSettings(shift=shift), peers.PeerState(np.array([0, 20])))
        for shift in (3.0, 30.0)
    ]
    assert {int(e["slot"]) for e in found[0].events} == {7} and not len(found[1].events)
    first, last = found[0].events[0], found[0].events[-1]
    assert 206 <= first["row"] <= 214 and first["row"] - first["run"] + 1 == 200
    assert last["row"] <= 229 and first["score"] > 1


def test_half_and_half_is_no_normal_to_differ_from():
    x = np.tile(np.repeat([0.0, 10.0, 20.0], 6), (20, 1))
    found = peers.rows(x, np.arange(18), np.array([1.0]), peers.PeerSettings(), peers.PeerState(np.array([0, 18])))
    assert not len(found.events) and not found.group_score.any()


def test_peers_load_no_torch():
    code = "import sys, numpy as np; from netfit.kernels import peers; peers.labels(np.ones(5), 1.0, 4)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("False", 0)
