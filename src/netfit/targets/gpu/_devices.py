"""What the data sheets say of common GPUs: peaks, bandwidth, sizes, power. None of these numbers is a measurement."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from netfit.errors import ConfigError, did_you_mean

from .._base import DeviceSpec

__all__ = ["GPUSpec", "device", "devices", "peak"]

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True)
class GPUSpec(DeviceSpec):
    """A GPU as its data sheet describes it.

    Args:
        sms: streaming multiprocessors (or compute units).
        l2_bytes: size of the last-level cache.
        tdp_w: board power limit in watts.
        sm_version: compute capability, such as 90; None for other vendors.
    """

    sms: int | None = None
    l2_bytes: float | None = None
    tdp_w: float | None = None
    sm_version: int | None = None


# name: (peak TFLOP/s by precision, dense; GB/s; memory GiB; SMs; L2 MiB; watts; compute capability)
_Row = tuple[dict[str, float], float, float, int, float, float, int]
_SHEETS: dict[str, _Row] = {
    "k80": ({"fp64": 1.46, "fp32": 4.37}, 240, 12, 13, 1.5, 150, 37),  # one of the two chips of a board
    "p100_sxm": ({"fp64": 5.3, "fp32": 10.6, "fp16": 21.2}, 732, 16, 56, 4, 300, 60),
    "titan_xp": ({"fp32": 12.15}, 547.6, 12, 30, 3, 250, 61),
    "v100_sxm": ({"fp64": 7.8, "fp32": 15.7, "fp16": 125}, 900, 32, 80, 6, 300, 70),
    "gtx_1650": ({"fp32": 2.98, "fp16": 5.97}, 128, 4, 14, 1, 75, 75),
    "rtx_2080_ti": ({"fp32": 13.45, "fp16": 53.8, "int8": 215}, 616, 11, 68, 5.5, 250, 75),
    "titan_rtx": ({"fp32": 16.3, "fp16": 130.5, "int8": 261}, 672, 24, 72, 6, 280, 75),
    "t4": ({"fp32": 8.1, "fp16": 65, "int8": 130}, 320, 16, 40, 4, 70, 75),
    "a100_sxm": (
        {"fp64": 9.7, "fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312, "int8": 624}, 2039, 80, 108, 40, 400, 80,
    ),
    "a100_pcie": (
        {"fp64": 9.7, "fp32": 19.5, "tf32": 156, "fp16": 312, "bf16": 312, "int8": 624}, 1935, 80, 108, 40, 300, 80,
    ),
    "a30": ({"fp32": 10.3, "tf32": 82, "fp16": 165, "bf16": 165, "int8": 330}, 933, 24, 56, 24, 165, 80),
    "a10": ({"fp32": 31.2, "tf32": 62.5, "fp16": 125, "bf16": 125, "int8": 250}, 600, 24, 72, 6, 150, 86),
    "a40": ({"fp32": 37.4, "tf32": 74.8, "fp16": 149.7, "bf16": 149.7, "int8": 299.3}, 696, 48, 84, 6, 300, 86),
    "a4000": ({"fp32": 19.2, "tf32": 38.3, "fp16": 76.7, "bf16": 76.7, "int8": 153.4}, 448, 16, 48, 4, 140, 86),
    "a6000": ({"fp32": 38.7, "tf32": 77.4, "fp16": 154.8, "bf16": 154.8, "int8": 309.7}, 768, 48, 84, 6, 300, 86),
    "rtx_3090": ({"fp32": 35.6, "tf32": 35.6, "fp16": 71, "bf16": 71, "int8": 284}, 936, 24, 82, 6, 350, 86),
    "l4": (
        {"fp32": 30.3, "tf32": 60, "fp16": 121, "bf16": 121, "int8": 242, "fp8": 242}, 300, 24, 58, 48, 72, 89,
    ),
    "l40s": (
        {"fp32": 91.6, "tf32": 183, "fp16": 362.05, "bf16": 362.05, "int8": 733, "fp8": 733},
        864, 48, 142, 96, 350, 89,
    ),
    "rtx_4090": (
        {"fp32": 82.6, "tf32": 82.6, "fp16": 165.2, "bf16": 165.2, "int8": 660.6, "fp8": 330.3},
        1008, 24, 128, 72, 450, 89,
    ),
    "h100_sxm": (
        {"fp64": 34, "fp32": 67, "tf32": 494, "fp16": 989, "bf16": 989, "int8": 1978, "fp8": 1978},
        3350, 80, 132, 50, 700, 90,
    ),
    "h100_pcie": (
        {"fp64": 26, "fp32": 51, "tf32": 378, "fp16": 756.5, "bf16": 756.5, "int8": 1513, "fp8": 1513},
        2000, 80, 114, 50, 350, 90,
    ),
    "h200_sxm": (
        {"fp64": 34, "fp32": 67, "tf32": 494, "fp16": 989, "bf16": 989, "int8": 1978, "fp8": 1978},
        4800, 141, 132, 50, 700, 90,
    ),
    "b200_sxm": (
        {"fp32": 75, "tf32": 1125, "fp16": 2250, "bf16": 2250, "int8": 4500, "fp8": 4500, "fp4": 9000},
        7700, 180, 148, 126, 1000, 100,
    ),
    "b300_sxm": (
        {"fp32": 75, "tf32": 1125, "fp16": 2250, "bf16": 2250, "int8": 153.5, "fp8": 4500, "fp4": 14000},
        7750, 268, 148, 126, 1100, 103,
    ),
    "gb200": (
        {"fp32": 80, "tf32": 1250, "fp16": 2500, "bf16": 2500, "int8": 5000, "fp8": 5000, "fp4": 10000},
        8000, 185, 148, 126, 1200, 100,
    ),
    "gb300": (
        {"fp32": 80, "tf32": 1250, "fp16": 2500, "bf16": 2500, "int8": 165, "fp8": 5000, "fp4": 15000},
        8000, 277, 148, 126, 1400, 103,
    ),
    "rtx_pro_6000_server": (
        {"fp32": 116.9, "fp16": 467.8, "bf16": 467.8, "int8": 935.6, "fp8": 935.6, "fp4": 1871.2},
        1792, 95, 188, 128, 600, 120,
    ),
}  # fmt: skip
_FORMS = frozenset({"sxm", "pcie", "server"})  # what a name may leave out
_OTHERS = frozenset({"laptop", "mobile", "ti", "super", "max"})  # what makes it another chip
# What an fp32 network runs in when the vendor has no unit for the precision that was asked.
_WIDER = {"fp4": "fp8", "fp8": "fp16", "int4": "int8", "int8": "fp16", "bf16": "fp16", "fp16": "fp32", "tf32": "fp32"}


def devices() -> list[str]:
    """Names of all GPUs in the table, sorted."""
    return sorted(_SHEETS)


def device(name: str) -> GPUSpec:
    """The data sheet of a GPU.

    Args:
        name: one of `devices`, its beginning (``"h100"``), or what a driver calls it
            (``"NVIDIA A100-PCIE-80GB"``).

    Raises:
        ConfigError: the table does not know it; the message says which are near.

    >>> device("h100").name, device("NVIDIA A100-PCIE-80GB").tdp_w
    ('h100_sxm', 300)
    """
    words = re.findall(r"[a-z]+\d*[a-z]*|\d+[a-z]*", name.lower().replace("_", " "))
    found = [(hits, key) for key in _SHEETS if (hits := _matches(key, words)) is not None]
    if not found:
        short = (key.partition("_sxm")[0] for key in _SHEETS)
        raise ConfigError(f"no data sheet of GPU {name!r}; {did_you_mean(name.lower(), (*_SHEETS, *short))}")
    most = max(hits for hits, _ in found)
    key = next(key for hits, key in found if hits == most)
    flops, gbytes, gib, sms, mib, watts, version = _SHEETS[key]
    return GPUSpec(
        key,
        {precision: tera * 1e12 for precision, tera in flops.items()},
        {"dram": gbytes * 1e9},
        int(gib * GIB),
        sms,
        mib * MIB,
        watts,
        version,
    )


def _matches(key: str, words: Sequence[str]) -> int | None:
    """How many words of a table name a text holds; None when it means another GPU."""
    parts = key.split("_")
    hits = {part for part in parts if any(w == part or (part in _FORMS and w.startswith(part)) for w in words)}
    if any(part not in hits and part not in _FORMS for part in parts) or (_OTHERS & set(words)) - set(parts):
        return None
    return len(hits)


def peak(spec: DeviceSpec, precision: str) -> float:
    """Operations per second in a precision, or in the next wider one that the device has.

    Raises:
        ConfigError: no peak is known.

    >>> peak(device("v100"), "bf16") == device("v100").flops["fp16"]
    True
    """
    flops, at = spec.flops or {}, precision
    while at not in flops and at in _WIDER:
        at = _WIDER[at]
    if at not in flops or not flops[at] > 0:
        known = ", ".join(f"{p} {f:.4g}" for p, f in flops.items()) or "none"
        raise ConfigError(f"device {spec.name!r} has no peak for {precision} (known: {known}); give flops above 0")
    return flops[at]
