"""Embeddings of DeepBench's convolutions: instructions, proofs and simulated cycles. ``python -m benchmarks.embed``."""

import time
from typing import Any

import numpy as np
import torch

from benchmarks._common import record
from netfit.compile._sizes import ConvSizes
from netfit.compile.embed import embed, reference, reference_calls
from netfit.compile.embed._axes import solve
from netfit.data.deepbench import deepbench
from netfit.targets.vta import Config

EXECUTED, MOST_MACS = 40, 3e8  # those above take minutes on a loaded core


def geomean(values: Any) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(np.asarray(values)).mean())) if len(values) else 0.0


def calls() -> tuple[list[dict[str, Any]], list[Any]]:
    """Proofs, seconds and gains of all server convolutions on the 1x16 core."""
    server = [ConvSizes.from_deepbench(row) for row in deepbench("conv", "inference_server_set")]
    found, spent = [], []
    for sizes in server:
        start = time.process_time()
        found.append(embed(sizes))
        spent.append(time.process_time() - start)
    gains = [e.gain for e in found if e.gain > 1]
    rows = [
        {
            "what": "server convolutions proven least",
            "value": float(sum(e.solution.proven for e in found)),
            "goal": "103",
        },
        {"what": "CPU s each, mean (both assignments of operands)", "value": float(np.mean(spent)), "goal": "0.6"},
        {"what": "CPU s each, most", "value": max(spent), "goal": "5"},
        {"what": "operators with fewer instructions", "value": float(len(gains)), "goal": "11"},
        {"what": "their gain, geometric mean", "value": geomean(gains), "goal": "8.0"},
        {"what": "their gain, most", "value": max(gains), "goal": "14.3"},
    ]
    return rows, found


def wide(found: list[Any]) -> list[dict[str, Any]]:
    """Gains of batch 1 on the 4x8 core, whose four rows a single image cannot fill by itself."""
    core, gains = (4, 8, 8), []
    for sizes in (e.sizes for e in found if e.sizes.n == 1):
        best = min(solve(sizes, core, roles).calls for roles in ("plain", "swapped"))
        gains.append(reference_calls(sizes, core) / best)
    return [
        {"what": "gain at batch 1 on the 4x8 core, geometric mean", "value": geomean(gains), "goal": "4.6"},
        {"what": "the same, most", "value": max(gains), "goal": "30.8"},
    ]


def cycles(found: list[Any]) -> list[dict[str, Any]]:
    """Simulated cycles where the fixed layout uses less than a quarter of the core."""
    low = [e for e in found if reference(e.sizes).utilization < 0.25]
    pairs = [(reference(e.sizes).cost(), e.cost()) for e in low]
    rows = [
        {"what": f"fewer cycles of {len(low)} poorly used operators, geometric mean", "goal": "2.8",
         "value": geomean([a["accelerator"] / b["accelerator"] for a, b in pairs])},
        {"what": "the same with packing on the host, both sides", "goal": "2.8",
         "value": geomean([a["total"] / b["total"] for a, b in pairs])},
    ]  # fmt: skip
    for name, sizes in {
        "1 channel, 1 filter, 112x112, 3x3": ConvSizes(1, 1, 112, 112, 1, 3, 3, padding=(1, 1)),
        "1 channel, 1 filter, 224x224, 5x5": ConvSizes(1, 1, 224, 224, 1, 5, 5, padding=(2, 2)),
        "depthwise, 64 channels, 56x56, 3x3": ConvSizes(1, 64, 56, 56, 64, 3, 3, padding=(1, 1), groups=64),
    }.items():
        best, fixed = embed(sizes), reference(sizes)
        gain = fixed.cost()["accelerator"] / best.cost()["accelerator"]
        rows.append({"what": f"fewer instructions, {name}", "value": best.gain, "goal": "100"})
        rows.append({"what": f"fewer cycles, {name}", "value": gain, "goal": "100"})
    return rows


def exact(found: list[Any]) -> dict[str, Any]:
    """Embeddings that were lowered, simulated and computed what torch computes."""
    rng, right, tried = np.random.default_rng(0), 0, 0
    small = [e for e in found if e.sizes.macs <= MOST_MACS]
    for one in small[:EXECUTED]:
        z = one.sizes
        x = rng.integers(-128, 128, (z.n, z.c, z.h, z.w)).astype(np.int8)
        w = rng.integers(-128, 128, (z.k, z.c, z.r, z.s)).astype(np.int8)
        out, _ = one.run(x, w)
        y = torch.nn.functional.conv2d(torch.tensor(x).double(), torch.tensor(w).double(), None, z.stride, z.padding)
        right += bool((out == np.clip(y.long().numpy() >> 8, 0, 127)).all())
        tried += 1
    return {"what": f"embeddings bit-exact on the simulator, of {tried}", "value": float(right), "goal": str(EXECUTED)}


def main() -> None:
    """Print and keep one row per figure."""
    torch.set_num_threads(1)
    rows, found = calls()
    rows += cycles(found)
    rows.append(exact(found))
    record("embed", rows, core=Config().name)
    record("embed_wide", wide(found), core="4x8")


if __name__ == "__main__":
    main()
