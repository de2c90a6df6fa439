"""Launches whose times follow a law, and the measured ones where they are at hand."""

import math

import numpy as np
import pytest

from netfit.errors import DataNotFound
from netfit.targets.gpu import KernelDB, KernelPredictor, Launch, device


def law(launch: Launch, efficiency: float = 0.6) -> float:
    """A GPU that reaches 0.6 of its peaks, less with few tiles, and needs 4 us to start."""
    spec = device(launch.device)
    tiles = math.ceil(launch.m / 128) * math.ceil(launch.n / 128) / spec.sms
    wave = math.ceil(tiles) / tiles
    compute = launch.flops / spec.flops["bf16"] * wave
    return 4e-6 + max(compute, launch.bytes / spec.bandwidth["dram"]) / efficiency


def products(gpu: str, n: int, seed: int, efficiency: float = 0.6, noise: float = 0.03) -> list[Launch]:
    """Random matrix products; apps are layers, kernels are two implementations."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        m, cols, k = (int(2 ** rng.uniform(5, 13)) for _ in range(3))
        launch = Launch(gpu, f"layer{i % 9}", f"mm{i % 3}", "gemm", dtype="bf16", m=m, n=cols, k=k).product()
        time_s = law(launch, efficiency) * math.exp(noise * rng.standard_normal())
        out.append(Launch(**vars(launch) | {"time_s": time_s, "power_w": 300.0 + 20 * rng.standard_normal()}))
    return out


@pytest.fixture(scope="session")
def db() -> KernelDB:
    base = KernelDB()
    for i, gpu in enumerate(("a100_sxm", "h100_sxm", "l40s")):
        base.add(products(gpu, 200, i))
    return base


@pytest.fixture(scope="session")
def trained(db: KernelDB) -> KernelPredictor:
    data = db.samples("op")
    return KernelPredictor(n_estimators=25).fit(data.X, data.time_s, data.labels["shape"], kinds=["gemm:bf16"])


@pytest.fixture
def measured():
    """A database of real matrix products, or a skip that says what is missing."""

    def read(systems: list[str], **options: object) -> KernelDB:
        pytest.importorskip("pyarrow")
        base = KernelDB()
        try:
            base.from_aiconfigurator(systems, **options)
        except DataNotFound as e:
            pytest.skip(str(e))
        return base

    return read
