"""Measured kernels of the package ``aiconfigurator-core``: its tables are read as data, its code is never imported."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from netfit.errors import ArtifactError, ConfigError, DataNotFound, did_you_mean, require

from ._launch import Launch

__all__ = ["read"]

PLACE = Path("aiconfigurator_core/systems/data")
# kind: (folder, file, column of the precision)
_FILES = {
    "gemm": ("gemm", "gemm_perf.parquet", "gemm_dtype"),
    "context_attention": ("attention", "context_attention_perf.parquet", "attn_dtype"),
    "generation_attention": ("attention", "generation_attention_perf.parquet", "attn_dtype"),
    "moe": ("moe", "moe_perf.parquet", "moe_dtype"),
}
# their precision: (of the arithmetic, of the weights)
_DTYPES = {
    "bfloat16": ("bf16", ""), "fp8": ("fp8", ""), "fp8_block": ("fp8", ""), "nvfp4": ("fp4", ""), "sq": ("int8", ""),
    "int8_wo": ("bf16", "int8"), "int4_wo": ("bf16", "int4"), "w4a16_mxfp4": ("bf16", "fp4"),
    "w4a8_mxfp4_mxfp8": ("fp8", "fp4"), "w4afp8": ("fp8", "int4"),
}  # fmt: skip
_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5, "int4": 0.5}
_Row = dict[str, Any]


def read(
    systems: Sequence[str], kinds: Sequence[str], framework: str, dtypes: Sequence[str],
    root: str | Path | None, limit: int | None, seed: int,
) -> Iterator[Launch]:  # fmt: skip
    """Launches of the tables; see `KernelDB.from_aiconfigurator`."""
    folder = _folder(root)
    for kind in kinds:
        if kind not in _FILES:
            raise ConfigError(f"no measured kind {kind!r}; {did_you_mean(kind, _FILES)}")
        for system in systems:
            path = _newest(folder, system, kind, framework)
            for row in _rows(path, _FILES[kind][2], dtypes, limit, seed):
                try:
                    launch = _MAKE[kind](row, system)
                except (KeyError, TypeError, ValueError) as e:
                    raise ArtifactError(f"{path} has a row of another form: {type(e).__name__}: {e}") from e
                if launch.time_s and launch.time_s > 0:
                    yield launch


def _folder(root: str | Path | None) -> Path:
    given = root or os.environ.get("NETFIT_GPU_DATA")
    try:
        found = Path(given) / PLACE if given else Path(str(distribution("aiconfigurator-core").locate_file(str(PLACE))))
    except PackageNotFoundError as e:
        raise DataNotFound(
            "measured GPU kernels are not here: pip install --no-deps aiconfigurator-core (82 MB, Apache-2.0), "
            "or give root= or $NETFIT_GPU_DATA, the folder that holds aiconfigurator_core"
        ) from e
    if not found.is_dir():
        raise DataNotFound(f"{found} is not there; root= or $NETFIT_GPU_DATA is the folder that holds {PLACE.parts[0]}")
    return found


def _newest(folder: Path, system: str, kind: str, framework: str) -> Path:
    """The newest table; of attention and MoE the newest with power, where there is one."""
    parquet: Any = require("pyarrow.parquet", "gpu-data")
    below, file, _ = _FILES[kind]
    for place, name, what in ((folder, system, "system"), (folder / system / below, framework, "framework")):
        if not (place / name).is_dir():
            there = [p.name for p in place.iterdir()] if place.is_dir() else []
            raise ConfigError(f"no {what} {name!r} with {kind} kernels; {did_you_mean(name, there)}")
    found = sorted((folder / system / below / framework).glob(f"*/{file}"), key=lambda p: _version(p.parent.name))
    if not found:
        raise ConfigError(f"{framework} on {system} has no table of {kind}")
    powered = [p for p in found if kind != "gemm" and "power" in parquet.read_schema(p).names]
    return (powered or found)[-1]


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _rows(path: Path, dtype: str, dtypes: Sequence[str], limit: int | None, seed: int) -> Iterator[_Row]:
    parquet: Any = require("pyarrow.parquet", "gpu-data")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as e:
        raise ArtifactError(f"cannot read {path}: {e}") from e
    names = np.array(table.column(dtype).to_pylist())
    keep = np.flatnonzero(np.isin(names, list(dtypes) or list(_DTYPES)) & np.isin(names, list(_DTYPES)))
    if not len(keep):
        raise ConfigError(
            f"{path.name} of {path.parts[-5]} has no {dtype} in {list(dtypes)}; it has {sorted(set(names))}"
        )
    if limit is not None and limit < len(keep):
        keep = np.sort(np.random.default_rng(seed).choice(keep, limit, replace=False))
    yield from table.take(keep).to_pylist()


def _gemm(row: _Row, system: str) -> Launch:
    m, n, k = int(row["m"]), int(row["n"]), int(row["k"])
    return Launch(kernel="gemm", kind="gemm", m=m, n=n, k=k, **_common(row, system, "gemm", f"n{n}k{k}")).product()


def _attention(row: _Row, system: str, generation: bool) -> Launch:
    """Prompts attend to what is before them, half of the square; generated tokens to all of the cache."""
    batch, length, heads, size = (int(row[c]) for c in ("batch_size", "isl", "num_heads", "head_dim"))
    keys, window = int(row["num_key_value_heads"]) or heads, int(row["window_size"])
    m, n = (1, length + int(row["step"])) if generation else (length, length)
    n = min(n, window) if window > 0 else n
    common = _common(row, system, "attn", f"h{heads}kv{keys}d{size}w{window}")
    cache = _DTYPES.get(row["kv_cache_dtype"], ("bf16", ""))[0]
    moved = batch * (2 * heads * m * size * 2.0 + 2 * keys * n * size * _BYTES[cache])
    flops = 4.0 * batch * heads * m * n * size * (1.0 if generation or n < length else 0.5)
    return Launch(
        kernel=str(row["op_name"]), kind="attention", m=m, n=n, k=size, count=batch * heads, batch=batch,
        share=heads / keys, skew=float(window > 0), flops=flops, bytes=moved, **common | {"weight_dtype": cache},
    )  # fmt: skip


def _moe(row: _Row, system: str) -> Launch:
    """Three matrix products in each expert that tokens are sent to."""
    tokens, hidden, inner, topk, experts, tp, ep = (
        int(row[c])
        for c in ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    )
    common = _common(row, system, "moe", f"h{hidden}i{inner}k{topk}e{experts}")
    sent, inner = max(1.0, tokens * topk / ep), max(1, inner // tp)
    active = max(1, min(experts // ep, int(sent)))
    width, uneven = (
        _BYTES[common["weight_dtype"] or common["dtype"]],
        re.search(r"power_law_([\d.]+)", str(row["distribution"])),
    )
    return Launch(
        kernel="moe", kind="moe", m=max(1, round(sent / active)), n=inner, k=hidden, count=active, batch=tokens,
        share=max(1.0, experts / topk), skew=float(uneven[1]) if uneven else 0.0,
        flops=6.0 * sent * hidden * inner, bytes=active * 3.0 * hidden * inner * width + 4.0 * sent * hidden, **common,
    )  # fmt: skip


def _common(row: _Row, system: str, prefix: str, app: str) -> dict[str, Any]:
    dtype, weight = _DTYPES[row[f"{prefix}_dtype"]]
    power = row.get("power")
    return {
        "device": system, "app": app, "dtype": dtype, "weight_dtype": weight, "variant": str(row["kernel_source"]),
        "time_s": float(row["latency"]) * 1e-3, "power_w": float(power) if power and power > 0 else None,
        "source": f"aiconfigurator:{row['framework']} {row['version']}".lower(),
    }  # fmt: skip


_MAKE: dict[str, Callable[[_Row, str], Launch]] = {
    "gemm": _gemm,
    "context_attention": lambda row, system: _attention(row, system, generation=False),
    "generation_attention": lambda row, system: _attention(row, system, generation=True),
    "moe": _moe,
}
