"""A processor of round numbers, so that every bound can be worked out by hand."""

import pytest

from netfit.targets.roofline import Peaks


@pytest.fixture(scope="session")
def peaks() -> Peaks:
    levels = {"l1": 256e9, "l2": 64e9, "l3": 16e9, "dram": 8e9}
    return Peaks(
        device="round numbers",
        caches={"l1": 32 << 10, "l2": 1 << 20, "l3": 4 << 20},
        read=levels,
        write={level: rate / 2 for level, rate in levels.items()},
        ops={
            "fp32": {"vector": 128e9},
            "bf16": {"vector": 256e9},
            "int8": {"vector": 512e9, "tiles": 4096e9},
            "bits": {"vector": 2048e9},
        },
        vector_bytes=64,
        chain_s=1e-9,
        curve=((4096, 256e9), (1 << 18, 64e9)),
        noise={"fp32 vector": 0.01},
    )
