"""``netfit gpu`` and GPUs as the target of ``netfit cost``."""

import json

import numpy as np
import pytest

CSV = "M,N,K,us,gpu,layer\n" + "\n".join(
    f"{m},{n},{k},{4 + 2e6 * m * n * k / (0.6 * rate):.3f},{gpu},l{n}"
    for gpu, rate in (("a100_sxm", 312e12), ("h100_sxm", 989e12))
    for m in (64, 128, 512, 1000, 4096)
    for n in (256, 1024, 3000)
    for k in (512, 2048, 4096)
)


@pytest.fixture
def database(netfit, tmp_path):
    (tmp_path / "mm.csv").write_text(CSV)
    done = netfit(
        "gpu", "import", tmp_path / "mm.csv", "--into", tmp_path / "k.db", "--format", "csv",
        "--map", "m=M,n=N,k=K,time_us=us,device=gpu,app=layer", "--set", "kernel=mm,kind=gemm,dtype=bf16", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.json["added"] == 90 and {row["device"] for row in done.json["content"]} == {"a100_sxm", "h100_sxm"}
    return tmp_path / "k.db"


def test_from_measurements_to_a_prediction(netfit, database, tmp_path):
    pytest.importorskip("skl2onnx")
    trained = netfit("gpu", "train", database, tmp_path / "p", "--trees", "20", "--json")
    assert trained.status == 0, trained.err
    assert trained.json["kinds"] == ["gemm:bf16"] and trained.json["rows"] == 90
    ask = ("gpu", "predict", tmp_path / "p", "--device", "h100", "--m", "512", "--n", "1024", "--k", "2048")
    found = netfit(*ask, "--json").json
    expected = 1e-6 * (4 + 2e6 * 512 * 1024 * 2048 / (0.6 * 989e12))
    assert found["value"] == pytest.approx(expected, rel=0.3) and found["lo"] <= found["value"] <= found["hi"]
    assert found["known"] and found["explain"]["effects"]
    assert "not on gemm:fp8" in netfit(*ask, "--dtype", "fp8").out
    adapted = netfit("gpu", "adapt", tmp_path / "p", database, tmp_path / "q", "--only", "a100_sxm", "--json")
    assert adapted.json["correction"]["probes"] == 30
    place = f"gpu:a100,precision=bf16,time={tmp_path / 'q'}"
    cost = netfit("cost", "lenet5", "--target", place, "--json")
    assert cost.status == 0 and "predicted: a100_sxm" in cost.json["totals"]["source"]


def test_evaluation_leaves_a_page(netfit, database, tmp_path):
    where = tmp_path / "run"
    done = netfit("gpu", "evaluate", database, "--trees", "8", "--run", where, "--json")
    assert done.status == 0, done.err
    order = [score["protocol"] for score in done.json["scores"]]
    assert order[0] == "leave-device-out" and order[-1] == "leave-sample-out"
    result = json.loads((where / "result.json").read_text())
    assert result["kind"] == "gpu" and result["scores"] == done.json["scores"]
    page = (where / "report.html").read_text()
    assert "leave-device-out" in page and "leave-kernel-out" in page  # the second as a warning: there is one kernel
    text = netfit("gpu", "evaluate", database, "--trees", "4", "--protocol", "leave-shape-out").out
    assert "leave-shape-out" in text and "leave-sample-out" not in text


def test_a_kernel_from_its_ptx(netfit, tmp_path):
    pytest.importorskip("skl2onnx")
    from netfit.targets.gpu import KernelDB, KernelPredictor, Launch

    db, rng = KernelDB(), np.random.default_rng(0)
    db.add(
        Launch(
            "t4", "app", f"k{i}", grid=(8, 1, 1), block=(64, 1, 1), time_s=float(n) * 1e-9,
            counts={"fma.rn.f32": n, "ld.global.f32": n / 2, "ret": 512.0},
        )
        for i, n in enumerate(10 ** rng.uniform(4, 8, 60))
    )  # fmt: skip
    data = db.samples("ptx")
    KernelPredictor("time", "ptx", "instructions", n_estimators=10).fit(data.X, data.time_s).save(tmp_path / "p")
    (tmp_path / "k.ptx").write_text(".entry k() { $L: fma.rn.f32 %f1, %f1, %f1, %f1; @%p bra $L; ret; }")
    ask = (
        "gpu",
        "predict",
        tmp_path / "p",
        "--device",
        "t4",
        "--ptx",
        tmp_path / "k.ptx",
        "--grid",
        "8",
        "--block",
        "64",
    )
    assert netfit(*ask, "--trips", "$L=1000", "--json").json["value"] > 1e-4
    missing = netfit(*ask)
    assert missing.status == 2 and "$L has no trip count" in missing.err


def test_bounds_need_no_data(netfit):
    done = netfit("cost", "lenet5", "--target", "gpu:h100", "--json")
    assert done.status == 0 and done.json["totals"]["source"].startswith("lower bound: h100_sxm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu", "evaluate", "nowhere.db"), "there is no kernel database nowhere.db"),
        (("gpu", "import", "nowhere.json", "--into", "k.db"), "cannot read nowhere.json"),
        (("gpu", "import", "bbc.txt", "--into", "k.db", "--format", "cuda-flux"), "--device says"),
        (("gpu", "import", "x.csv", "--into", "k.db", "--format", "csv", "--map", "m"), "lacks a value"),
        (("gpu", "predict", "nowhere", "--device", "h100"), "nowhere"),
        (("cost", "lenet5", "--target", "gpu:h10"), "did you mean"),
    ],
)
def test_bad_input_is_one_line_and_status_2(netfit, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = netfit(*arguments)
    assert done.status == 2 and message in done.err and len(done.err.strip().splitlines()) == 1
