"""The predictor: better than its bound, honest intervals, adaptation that does no harm, files without scikit-learn."""

import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from netfit.errors import ArtifactError, ConfigError, MissingExtraError
from netfit.targets.gpu import KernelDB, KernelPredictor
from netfit.targets.gpu._adapt import correct

from .conftest import products


def mape(found, truth):
    return 100 * float(np.mean(np.abs(found / truth - 1)))


def unseen(gpu="h100_sxm", efficiency=0.6, noise=0.03):
    base = KernelDB()
    base.add(products(gpu, 150, 99, efficiency, noise))
    return base.samples("op")


def test_unseen_shapes_and_an_unseen_gpu_beat_the_bound(trained, db):
    for gpu in ("a100_sxm", "b200_sxm"):
        data = unseen(gpu)
        bound = np.exp(data.X[:, data.columns.index("log_bound")])
        assert mape(trained.predict(data.X), data.time_s) < 0.75 * mape(bound, data.time_s)


def test_intervals_cover_what_they_say(trained):
    data = unseen()
    for share, low, high in ((0.9, 0.82, 0.98), (0.5, 0.38, 0.68)):
        value, lo, hi = trained.predict(data.X, interval=share)
        assert (lo <= value).all() and (value <= hi).all()
        assert low <= np.mean((lo <= data.time_s) & (data.time_s <= hi)) <= high
    assert (trained.predict(data.X, 0.99).hi >= trained.predict(data.X, 0.5).hi).all()


def test_power_and_energy(db):
    data = db.samples("op")
    watts = KernelPredictor("power", n_estimators=100).fit(data.X, data.power_w).predict(data.X)
    joules = KernelPredictor("energy", n_estimators=20).fit(data.X, data.y("energy")).predict(data.X)
    assert mape(watts, data.power_w) < 10 and mape(joules, data.y("energy")) < 25


def test_adapting_to_a_slower_gpu_helps_and_to_a_known_one_does_no_harm(trained):
    for efficiency, least_gain in ((0.3, 15.0), (0.6, -0.5)):
        data, gains = unseen(efficiency=efficiency), []
        for seed in range(8):
            probes = np.random.default_rng(seed).choice(len(data), 30, replace=False)
            rest = np.setdiff1d(np.arange(len(data)), probes)
            adapted = trained.adapt(data.X[probes], data.time_s[probes])
            errors = [mape(p.predict(data.X[rest]), data.time_s[rest]) for p in (trained, adapted)]
            gains.append(errors[0] - errors[1])
        assert statistics.fmean(gains) >= least_gain
    assert trained.correction.kind == "zero-shot"  # the given one stays as it was


def test_probes_of_pure_noise_change_nothing():
    rng = np.random.default_rng(0)
    kept = [
        correct(rng.standard_normal((30, 3)), 0.1 * rng.standard_normal(30), 0.2).kind == "zero-shot" for _ in range(40)
    ]
    assert np.mean(kept) > 0.6
    gaps = []
    for _ in range(40):
        basis, noise = rng.standard_normal((30, 3)), 0.1 * rng.standard_normal(30)
        found = correct(basis, noise, 0.2)
        gaps.append(np.abs(found(rng.standard_normal((200, 3)))).mean())
    assert np.mean(gaps) < 0.02


def test_leave_one_out_in_closed_form_is_leave_one_out():
    from netfit.targets.gpu._adapt import _ridge

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    x -= x.mean(0)
    left = _ridge(x, y, 0.5)[1]
    for i in range(20):
        # The intercept is not penalised: solve the bordered system without row i.
        rows = np.arange(20) != i
        a = np.c_[np.ones(19), x[rows]]
        w = np.linalg.solve(a.T @ a + np.diag([0, 0.5, 0.5, 0.5]), a.T @ y[rows])
        assert left[i] == pytest.approx(y[i] - np.r_[1, x[i]] @ w, rel=1e-9)


def test_explain_names_what_drives_a_prediction(trained):
    data = unseen()
    for row, value in zip(trained.explain(data.X[:5]), trained.predict(data.X[:5]), strict=True):
        assert row["value"] == pytest.approx(value) == pytest.approx(row["base"] * row["factor"])
        assert len(row["effects"]) == 5 and all(effect > 0 for effect in row["effects"].values())


def test_scikit_learn_takes_it(db):
    from sklearn.base import clone
    from sklearn.model_selection import GroupKFold, cross_val_score

    data = db.samples("op")
    model = KernelPredictor(n_estimators=10)
    assert clone(model).get_params() == model.get_params()
    groups = data.labels["shape"]
    scores = cross_val_score(model, data.X, data.time_s, groups=groups, cv=GroupKFold(3))
    assert (scores > 0.95).all()
    assert model.set_params(n_estimators=3).n_estimators == 3


def test_the_seed_decides(db):
    data = db.samples("op").take(slice(0, 100))
    one, same, other = (KernelPredictor(n_estimators=5, random_state=s).fit(data.X, data.time_s) for s in (1, 1, 2))
    assert np.array_equal(one.predict(data.X), same.predict(data.X))
    assert not np.array_equal(one.predict(data.X), other.predict(data.X))


WITHOUT_SKLEARN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sklearn", "skl2onnx"):
            raise ImportError(name + " is not installed", name=name)
sys.meta_path.insert(0, Absent())
import numpy as np
from netfit.targets.gpu import KernelPredictor
model = KernelPredictor.load(sys.argv[1])
x = np.load(sys.argv[2], allow_pickle=False)
value, lo, hi = model.predict(x, interval=0.9)
adapted = model.adapt(x[:20], 2 * value[:20])
assert adapted.correction.kind != "zero-shot" and model.explain(x[:1])
adapted.save(sys.argv[3])
assert "sklearn" not in sys.modules
np.save(sys.argv[2] + ".out.npy", np.stack([value, lo, hi, adapted.predict(x)]))
"""


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    pytest.importorskip("skl2onnx")
    place = tmp_path_factory.mktemp("predictor") / "time"
    trained.save(place)
    return place


def test_a_saved_predictor_runs_without_scikit_learn(saved, trained, tmp_path):
    data = unseen()
    np.save(tmp_path / "x.npy", data.X)
    arguments = (saved, tmp_path / "x.npy", tmp_path / "adapted")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SKLEARN, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-800:]
    value, lo, hi, twice = np.load(tmp_path / "x.npy.out.npy", allow_pickle=False)
    for found, expected in zip((value, lo, hi), trained.predict(data.X, 0.9), strict=True):
        assert np.allclose(found, expected, rtol=1e-5)
    assert np.allclose(KernelPredictor.load(tmp_path / "adapted").predict(data.X), twice, rtol=1e-6)
    assert mape(twice, 2 * value) < 5


def test_one_prediction_of_a_saved_file_is_much_faster(saved, trained):
    x = unseen().X[:1]
    loaded, seconds = KernelPredictor.load(saved), {}
    for name, model, repeats in (("onnx", loaded, 50), ("sklearn", trained, 5)):
        for _ in range(2):
            model.predict(x)
        start = time.process_time()
        for _ in range(repeats):
            model.predict(x)
        seconds[name] = (time.process_time() - start) / repeats
    assert seconds["sklearn"] > 5 * seconds["onnx"]  # 25 trees; benchmarks/gpu.py measures 256


def test_a_damaged_file(saved, tmp_path):
    import shutil

    for name in ("model.onnx", "netfit.json"):
        copy = tmp_path / name.partition(".")[0]
        shutil.copytree(saved, copy)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError):
            KernelPredictor.load(copy)
    with pytest.raises(ArtifactError):
        KernelPredictor.load(tmp_path / "nowhere")


def test_another_artifact_is_no_predictor(tmp_path):
    from netfit.io import write_artifact

    write_artifact(tmp_path / "a", {"kind": "model"}, {})
    with pytest.raises(ArtifactError, match="no kernel predictor"):
        KernelPredictor.load(tmp_path / "a")


def test_the_converter_is_an_extra(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingExtraError, match=r"netfit\[gpu\]"):
        trained.save(tmp_path / "p")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"quantity": "tme"}, "did you mean 'time'"), ({"features": "x"}, "features = 'x'"), ({"base": "b"}, "base = 'b'"),
     ({"n_estimators": 0}, "n_estimators = 0; allowed"), ({"base": "instructions"}, "needs log_instructions"),
     ({"features": "settings"}, "needs log_bound")],
)  # fmt: skip
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        KernelPredictor(**settings)


def test_input_that_is_refused(trained, db):
    data = db.samples("op")
    x, y = data.X[:30], data.time_s[:30]
    cases = [
        (lambda: KernelPredictor().predict(x), "not fitted"),
        (lambda: trained.predict(x[:, :5]), r"shape \(30, 5\)"),
        (lambda: trained.predict(np.where(x == x[3, 4], math.nan, x)), "X holds nan at row"),
        (lambda: KernelPredictor().fit(x, -y), "time of row 0 is -"),
        (lambda: KernelPredictor().fit(x, y[:3]), "30 rows with 3 values"),
        (lambda: trained.adapt(x[:2], y[:2]), "2 probes"),
        (lambda: trained.adapt(x, np.full(30, math.nan)), "one value above 0 each"),
        (lambda: trained.predict(x, interval=1.0), "interval = 1.0"),
        (lambda: KernelPredictor(n_estimators=2).fit(x[:5], y[:5]).predict(x, 0.9), "20 rows or more"),
        (lambda: db.samples("opp"), "did you mean 'op'"),
        (lambda: db.samples("ptx"), "instruction counts"),
    ]
    for call, message in cases:
        with pytest.raises(ConfigError, match=message):
            call()


def test_tuning_parameters_find_a_fast_configuration():
    from netfit.data import tuning_space
    from netfit.errors import DataNotFound
    from netfit.targets.gpu import Launch

    try:
        space = tuning_space("convolution_milo/A100")
    except DataNotFound as e:
        pytest.skip(str(e))
    base = KernelDB()
    ok = np.isfinite(space.time_ms)
    rows = zip(space.params[ok], space.time_ms[ok], strict=True)
    base.add(
        Launch(
            space.device, "tuner", "conv", settings=dict(zip(space.names, map(float, p), strict=True)), time_s=t / 1e3
        )
        for p, t in rows
    )
    data = base.samples("settings")
    some = np.random.default_rng(0).choice(len(data), len(data) // 10, replace=False)
    model = KernelPredictor("time", "settings", "none", n_estimators=30)
    model.fit(data.X[some], data.time_s[some], columns=data.columns, intervals=False)
    best_of_ten = data.time_s[np.argsort(model.predict(data.X))[:10]].min()
    assert best_of_ten <= 1.4 * data.time_s.min()


@pytest.mark.slow
def test_measured_products_of_unseen_shapes_and_devices(measured):
    data = measured(["a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s"], limit=1500).samples("op")
    here = data.labels["device"] == "h200_sxm"
    rest = data.take(~here)
    model = KernelPredictor(n_estimators=50).fit(rest.X, rest.time_s, rest.labels["shape"])
    assert mape(model.predict(data.X[here]), data.time_s[here]) < 12
