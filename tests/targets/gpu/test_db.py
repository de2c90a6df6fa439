"""Importers: every source becomes the same rows, and damage is one line."""

import gzip
import json
import sqlite3

import numpy as np
import pytest
import torch
from torch import nn

from netfit.errors import ArtifactError, ConfigError, DataNotFound
from netfit.targets.gpu import GPUSpec, KernelDB, Launch


def kernel(name: str, ts: float, dur: float, owner: int | None, **args: object) -> dict:
    given = {"device": 0, "grid": [8, 4, 1], "block": [256, 1, 1], "shared memory": 49152, "registers per thread": 128}
    extra = {} if owner is None else {"External id": owner}
    return {"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur, "args": given | extra | args}


def operator(name: str, ident: int, dims: list, kind: str = "c10::BFloat16", **args: object) -> dict:
    given = {"External id": ident, "Input Dims": dims, "Input type": [kind] * len(dims)}
    return {"ph": "X", "cat": "cpu_op", "name": name, "ts": ident, "dur": 5, "pid": 1, "tid": 1, "args": given | args}


CUDA = {
    "deviceProperties": [{"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132}],
    "traceEvents": [
        operator("aten::addmm", 1, [[4096], [512, 1024], [1024, 4096]]),
        operator("aten::_softmax", 2, [[512, 4096]]),
        operator("aten::cudnn_convolution", 3, [[2, 8, 16, 16], [4, 8, 3, 3], [], [], []],
                 **{"Concrete Inputs": ["", "", "[1, 1]", "[2, 2]", "[1, 1]"]}),
        kernel("sm90_xmma_gemm", 10, 30.0, 1),
        kernel("splitKreduce", 45, 6.5, 1, grid=[2, 1, 1]),
        kernel("softmax_warp_forward", 60, 4.25, 2),
        kernel("implicit_convolve", 70, 9.0, 3),
        kernel("my_triton_kernel", 80, 2.0, None),
        {"ph": "i", "name": "nothing", "ts": 0},
    ],
}  # fmt: skip


@pytest.fixture
def trace(tmp_path):
    def write(content: dict, packed: bool = False):
        path = tmp_path / ("net.json.gz" if packed else "net.json")
        data = json.dumps(content).encode()
        path.write_bytes(gzip.compress(data) if packed else data)
        return path

    return write


@pytest.mark.parametrize("packed", [False, True])
def test_a_cuda_trace(trace, packed):
    db = KernelDB()
    assert db.from_torch_profiler(trace(CUDA, packed)) == 4
    product, softmax, convolution, alone = db.launches()
    assert product.device == "NVIDIA H100 80GB HBM3" and product.app == "net"
    assert (product.kernel, product.kind, product.dtype) == ("sm90_xmma_gemm", "gemm", "bf16")
    assert (product.m, product.n, product.k) == (512, 4096, 1024)
    assert product.grid == (8, 4, 1) and product.block == (256, 1, 1)
    assert product.shared_bytes == 49152 and product.registers == 128
    assert product.time_s == pytest.approx(36.5e-6)  # both kernels of the operator
    assert product.flops == 2 * 512 * 4096 * 1024 and product.bytes == 2 * (512 * 1024 + 1024 * 4096 + 512 * 4096)
    assert (softmax.kind, softmax.variant, softmax.m) == ("reduction", "softmax", 512 * 4096)
    assert (convolution.kind, convolution.m, convolution.n, convolution.k) == ("conv2d", 2 * 64, 4, 72)
    assert alone.kind == "kernel" and alone.time_s == pytest.approx(2e-6)
    assert len(db.samples("op")) == 3  # nobody knows what the lone kernel computes
    assert db.spec("NVIDIA H100 80GB HBM3").name == "h100_sxm"


def test_a_trace_made_on_this_cpu(tmp_path):
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        net(torch.ones(16, 64))
    path = tmp_path / "mine.json"
    profile.export_chrome_trace(str(path))
    db = KernelDB()
    db.from_torch_profiler(path)
    products = db.launches(kind="gemm")
    assert [(p.m, p.n, p.k) for p in products] == [(16, 128, 64), (16, 32, 128)]
    assert {p.device for p in products} == {"cpu"} and all(p.time_s > 0 for p in products)
    with pytest.raises(ConfigError, match=r"'cpu'.*add_device"):
        db.samples("op")
    db.add_device(GPUSpec("cpu", {"fp32": 5e10}, {"dram": 1e10}))
    assert len(db.samples("op")) >= 3


ODD = [
    b'{"traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1, "dur": "x"}]}',
    b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "ts": [], "dur": 1, "args": null}]}',
]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"traceEvents": 3}', b'{"traceEvents": []}', b"\x1f\x8bxx", b"\xff\xfe", *ODD]
)
def test_what_is_no_trace(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"x\.json"):
        KernelDB().from_torch_profiler(path)


# Two kernels in the form CUDA Flux writes; the counts are small enough to check by hand.
FLUX = """- Function:
  Name: _Z4copyPf
  BlockCount: 2
  Blocks:\x20
  - entry:
    - ld.param.u64
    - bra
  - body:
    - ld.global.f32
    - st.global.f32
- Function:
  Name: _Z4initPf
  BlockCount: 1
  Blocks:\x20
  - entry:
    - ret
"""
BBC = """# CUDA_Flux_Version=0.3
_Z4copyPf, 2, 1, 1, 32, 1, 1, 128, 62, 0, 64, 640
_Z4initPf, 4, 1, 1, 64, 1, 1, 0, 5, 1, 64
"""


@pytest.fixture
def flux(tmp_path):
    folder = tmp_path / "saxpy"
    folder.mkdir()
    (folder / "PTX_Analysis.yml").write_text(FLUX)
    (folder / "bbc.txt").write_text(BBC)
    return folder / "bbc.txt"


def test_cuda_flux_text(flux):
    db = KernelDB()
    assert db.from_cuda_flux(flux, device="t4") == 2
    copy, init = db.launches()
    assert copy.counts == {"ld.param.u64": 64, "bra": 64, "ld.global.f32": 640, "st.global.f32": 640}
    assert (copy.app, copy.kernel, copy.time_s, copy.shared_bytes) == ("saxpy", "_Z4copyPf", pytest.approx(62e-6), 128)
    assert init.counts == {"ret": 256}  # one of four thread blocks was counted
    found = dict(zip(db.samples("ptx").columns, db.samples("ptx").X[0], strict=True))
    assert np.expm1(found["log_global_bytes"]) == pytest.approx(640 * 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("640", "640, 1", "line 2: 3 counters"),
        ("62,", "x,", "line 2: ValueError"),
        ("_Z4copyPf", "_Z5other", "_Z5other"),
    ],
)
def test_cuda_flux_text_that_does_not_fit(flux, old, new, message):
    flux.write_text(BBC.replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        KernelDB().from_cuda_flux(flux, device="t4")


def test_cuda_flux_tables(tmp_path):
    metrics, times, powers = (tmp_path / f"{name}.db" for name in ("flux", "time", "power"))
    values = {"gX": 2, "gY": 1, "gZ": 1, "bX": 32, "bY": 1, "bZ": 1, "shm": 0, "time": 9, "ld.global.f32": 64}
    with sqlite3.connect(metrics) as store:
        store.execute("CREATE TABLE fluxmetrics (bench, app, dataset, lseq, name, metric, value)")
        rows = [("suite", "mvt", "s1", 0, "k1", metric, value) for metric, value in values.items()]
        store.executemany("INSERT INTO fluxmetrics VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    for path, table, column, pair in (
        (times, "kerneltime", "time", (10, 14)),
        (powers, "kernelpower", "power", (50, 52)),
    ):
        with sqlite3.connect(path) as store:
            store.execute(f"CREATE TABLE {table} (bench, app, dataset, build, lseq, {column})")
            store.executemany(f"INSERT INTO {table} VALUES ('suite', 'mvt', 's1', 'b', 0, ?)", [(v,) for v in pair])
    db = KernelDB()
    assert db.from_cuda_flux(metrics, device="k80", times=times, powers=powers) == 1
    row = db.launches()[0]
    assert (row.app, row.kernel, row.dataset, row.grid) == ("suite/mvt", "k1", "s1", (2, 1, 1))
    assert row.counts == {"ld.global.f32": 64} and row.time_s == pytest.approx(12e-6) and row.power_w == 51
    with pytest.raises(ArtifactError, match="kerneltime"):
        db.from_cuda_flux(metrics, device="k80", times=powers)


def cache(params: list[str], entries: list[dict]) -> dict:
    return {
        "device_name": "NVIDIA A100-PCIE-40GB", "kernel_name": "convolve", "problem_size": [4096, 4096],
        "tune_params_keys": params, "cache": {",".join(str(e[p]) for p in params): e for e in entries},
    }  # fmt: skip


ENTRIES = [
    {"block_size_x": 16, "unroll": 2, "time": 1.5},
    {"block_size_x": 32, "unroll": 1, "time": "RuntimeFailedConfig"},
    {"block_size_x": 64, "unroll": 4, "time": 0.75, "ps_power": 210.5},
]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_kernel_tuner_cache_closed_or_not(tmp_path, cut):
    path = tmp_path / "cache.json"
    text = json.dumps(cache(["block_size_x", "unroll"], ENTRIES))
    path.write_text(text[: len(text) - cut] + ("," if cut == 2 else ""))
    db = KernelDB()
    assert db.from_kernel_tuner(path) == 2
    first, second = db.launches()
    assert first.settings == {"block_size_x": 16, "unroll": 2} and first.block == (16, 1, 1)
    assert (first.time_s, second.power_w) == (pytest.approx(1.5e-3), 210.5)
    assert db.samples("settings").columns == ("block_size_x", "unroll")


def test_what_is_no_kernel_tuner_cache(tmp_path):
    path = tmp_path / "cache.json"
    for text in ("[]", "{}", "nonsense", '{"kernel_name": 1, "device_name": 2, "tune_params_keys": [], "cache": 3}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"cache\.json"):
            KernelDB().from_kernel_tuner(path)


def test_csv(tmp_path):
    path = tmp_path / "mm.csv"
    path.write_text("M,N,K,us\n64,32,16,3.5\n8,8,8,2\n")
    db = KernelDB()
    columns = {"m": "M", "n": "N", "k": "K", "time_us": "us"}
    fixed = {"device": "h100", "app": "a", "kernel": "mm", "kind": "gemm", "dtype": "bf16"}
    assert db.from_csv(path, columns, **fixed) == 2
    row = db.launches()[0]
    assert (row.time_s, row.flops) == (pytest.approx(3.5e-6), 2 * 64 * 32 * 16)
    for map_, message in [
        (columns | {"m": "Q"}, "no column 'Q'"),
        (columns | {"mm": "M"}, "no column 'mm'; did you mean"),
        ({"m": "us"}, r"line 2: m is '3.5'; allowed are whole numbers"),
    ]:
        with pytest.raises(ConfigError, match=message):
            db.from_csv(path, map_, **fixed)
    with pytest.raises(ConfigError, match="no column for 'app'"):
        db.from_csv(path, columns, device="h100", kernel="mm")
    assert len(db) == 2  # nothing of a refused file is kept


@pytest.mark.parametrize(
    ("change", "message"),
    [({"time_s": -1.0}, "time_s = -1.0"), ({"time_s": float("nan")}, "time_s = nan"),
     ({"k": 0}, "k = 0; allowed from 1"), ({"power_w": 0.0}, "power_w = 0.0")],
)  # fmt: skip
def test_rows_that_are_refused(change, message):
    db = KernelDB()
    with pytest.raises(ConfigError, match=message):
        db.add([Launch("h100", "a", "mm"), Launch("h100", "a", "mm", **change)])
    assert len(db) == 0


def test_a_file_is_read_again_and_others_are_refused(tmp_path, db):
    path = tmp_path / "sub" / "k.db"
    first = KernelDB(path)
    rows = db.launches(device="l40s")
    first.add(rows)
    first.add_device(GPUSpec("mine", {"fp32": 1e12}, {"dram": 1e11}, sms=4))
    first.close()
    again = KernelDB(path)
    assert again.launches() == rows and again.spec("mine").sms == 4
    assert again.summary()[0]["launches"] == 200
    with pytest.raises(ConfigError, match="no column 'devise'; did you mean 'device'"):
        again.launches(devise="l40s")
    again.close()
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at " * 40)
    with sqlite3.connect(tmp_path / "other.db") as store:
        store.execute("CREATE TABLE t (x)")
    for name in ("text", "other.db"):
        with pytest.raises(ArtifactError, match=name):
            KernelDB(tmp_path / name)


def test_equal_launches_become_their_median():
    db = KernelDB()
    db.add([Launch("t4", "a", "mm", "gemm", m=8, n=8, k=8, time_s=t).product() for t in (1e-6, 2e-6, 9e-6)])
    data = db.samples("op")
    assert len(data) == 1 and data.time_s[0] == 2e-6 and np.isnan(data.power_w[0])


def test_measured_tables_are_read_where_they_are(measured, monkeypatch, tmp_path):
    options = {"kinds": ["gemm", "context_attention", "moe"], "framework": "vllm", "limit": 20}
    db = measured(["b200_sxm"], **options)
    assert len(db) == 60
    by_kind = {kind: db.launches(kind=kind) for kind in ("gemm", "attention", "moe")}
    assert all(len(rows) == 20 for rows in by_kind.values())
    assert all(row.power_w and row.power_w < 1100 for row in by_kind["attention"])
    assert by_kind["gemm"] == measured(["b200_sxm"], **options).launches(kind="gemm")
    with pytest.raises(ConfigError, match="did you mean 'b200_sxm'"):
        db.from_aiconfigurator(["b200_sxn"])
    with pytest.raises(DataNotFound, match="root="):
        db.from_aiconfigurator(["b200_sxm"], root=tmp_path)
