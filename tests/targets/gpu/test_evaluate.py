"""Protocols: what is left out is never in training, honest ones come first, leaks are named."""

import numpy as np
import pytest

from netfit.errors import ConfigError, DataNotFound
from netfit.targets.gpu import KernelDB, KernelPredictor, Launch, evaluate
from netfit.targets.gpu._evaluate import PROTOCOLS, _splits


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_nothing_left_out_is_in_training(db, protocol):
    data = db.samples("op")
    label = PROTOCOLS[protocol]
    groups = None if label is None else data.labels[label]
    tested = np.zeros(len(data), int)
    for _, train, test in _splits(data, protocol, groups, seed=0):
        assert not set(train) & set(test)
        if groups is not None:
            assert not set(groups[train]) & set(groups[test])
        tested[test] += 1
    longest = np.argsort(data.time_s)[-5:]
    expected = np.where(np.isin(np.arange(len(data)), longest), 0, 3) if protocol == "mangrove" else 1
    assert (tested == expected).all()


def test_honest_protocols_first_and_a_score_for_each_device(db):
    data = db.samples("op").take(slice(0, None, 3))
    found = evaluate(KernelPredictor(n_estimators=8), data)
    order = list(dict.fromkeys(score.protocol for score in found.scores))
    assert order == ["leave-kernel-out", "leave-device-out", "leave-app-out", "leave-shape-out", "leave-sample-out"]
    devices = [s.left_out for s in found.scores if s.protocol == "leave-device-out"]
    assert devices == ["3 devices", "a100_sxm", "h100_sxm", "l40s"]
    assert found["leave-sample-out"].rows == len(data)
    assert str(found).splitlines()[1].startswith("leave-kernel-out")
    assert found.to_json()["scores"][0]["protocol"] == "leave-kernel-out"


def leaky():
    """Every kernel has a time of its own that its features do not tell: only a random split can know it."""
    rng, rows = np.random.default_rng(0), []
    for kernel in range(12):
        own, size = float(10 ** rng.uniform(-5, -2)), 32 + 16 * kernel
        for i in range(6):
            launch = Launch(
                "t4", f"app{kernel % 4}", f"k{kernel}", "gemm", m=size + i, n=size, k=size, time_s=own * (1 + i / 50)
            )
            rows.append(launch.product())
    base = KernelDB()
    base.add(rows)
    return base.samples("op")


@pytest.mark.parametrize("protocol", ["leave-sample-out", "mangrove", None])
def test_a_random_split_never_comes_alone_and_its_leak_is_named(protocol):
    data = leaky()
    found = evaluate(KernelPredictor(base="none", n_estimators=10, min_samples_leaf=1), data, protocol)
    assert found.scores[0].protocol == "leave-kernel-out"
    assert any(w.startswith("leak: ") and "leave-kernel-out" in w for w in found.warnings)
    assert "leave-device-out" in found.warnings[-1]


HONEST_AND_NOT = ["leave-kernel-out", "leave-sample-out"]


def test_no_leak_no_warning(db):
    found = evaluate(KernelPredictor(n_estimators=8), db.samples("op").take(slice(0, None, 4)), HONEST_AND_NOT)
    assert found.warnings == ()


def test_what_the_data_cannot_answer(db):
    one = db.samples("op", device="l40s")
    with pytest.raises(ConfigError, match=r"all 200 launches have one device \(l40s\)"):
        evaluate(KernelPredictor(n_estimators=2), one, "leave-device-out")
    with pytest.raises(ConfigError, match="did you mean 'leave-app-out'"):
        evaluate(KernelPredictor(n_estimators=2), one, "leave-apps-out")
    with pytest.raises(ConfigError, match="measured power"):
        unmeasured = KernelDB()
        unmeasured.add([Launch("t4", "a", "k", "gemm", m=8, time_s=1e-6).product()])
        evaluate(KernelPredictor("power", n_estimators=2), unmeasured.samples("op"))


@pytest.fixture(scope="module")
def tutorial():
    from netfit.data import gpu_launches

    try:
        found = gpu_launches()
    except DataNotFound as e:
        pytest.skip(str(e))
    base, sizes = KernelDB(), dict(zip(found.names, found.counts.T, strict=True))
    opcodes = [name for name in found.names if name not in ("gX", "gY", "gZ", "bX", "bY", "bZ", "shm", "time")]
    for gpu in ("t4", "k80"):
        base.add(
            Launch(
                gpu, str(found.app[i]), str(found.kernel[i]), dataset=f"{found.dataset[i]}#{i}",
                grid=tuple(int(sizes[f"g{a}"][i]) for a in "XYZ"), block=tuple(int(sizes[f"b{a}"][i]) for a in "XYZ"),
                counts={name: float(sizes[name][i]) for name in opcodes if sizes[name][i]},
                time_s=float(np.median(found.time_us[gpu][i])) * 1e-6, power_w=float(np.median(found.power_w[gpu][i])),
            )
            for i in range(len(found.app))
        )  # fmt: skip
    return base


_BASES = ("none", "instructions")


def test_real_kernels_leak_without_a_base_and_instructions_help(tutorial):
    data = tutorial.samples("ptx", device="k80")
    assert len(data) == 43
    plain, by_count = (KernelPredictor("time", "ptx", b, n_estimators=16, min_samples_leaf=1) for b in _BASES)
    found = evaluate(plain, data, ["leave-kernel-out", "leave-sample-out"])
    assert any("leak" in warning for warning in found.warnings)
    helped = evaluate(by_count, data, "leave-kernel-out")
    assert helped["leave-kernel-out"].mape < 0.5 * found["leave-kernel-out"].mape


def test_power_of_real_unknown_kernels(tutorial):
    data = tutorial.samples("ptx", device="k80")
    model = KernelPredictor("power", "ptx", "none", n_estimators=16, min_samples_leaf=1)
    assert evaluate(model, data, "leave-kernel-out")["leave-kernel-out"].mape < 15
