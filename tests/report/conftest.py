"""Results of made-up compress runs, complete enough to fill every part of a report."""

import random
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def make_result() -> Callable[..., dict[str, Any]]:
    """`make_result(trials)` is a new `result.json` of a compress run."""
    return compress_result


def compress_result(trials: int = 120, seed: int = 0) -> dict[str, Any]:
    """A plausible `result.json` of ResNet-20 on CIFAR-10."""
    rng = random.Random(seed)
    layers = _layers(rng)
    points = [_trial(n, rng) for n in range(trials)]
    front = _front(points)
    feasible = [t for t in points if t["number"] in front and t["feasible"]]
    return {
        "kind": "compress",
        "model": "resnet20",
        "data": "cifar10",
        "goal": {"latency": 0.25, "max_drop": None},
        "base": {
            "accuracy": 0.9172,
            "latency_s": 1.82e-3,
            "macs": 40_813_184,
            "params": 272_474,
            "bytes": 1_094_208,
            "peak_bytes": 41_000_000,
        },
        "final": {
            "accuracy": 0.9131,
            "accuracy_deployed": 0.9128,
            "ratio": 0.243,
            "ratio_lo": 0.2412,
            "ratio_hi": 0.2451,
            "latency_s": 4.42e-4,
            "macs": 19_400_000,
            "params": 118_230,
            "bytes": 171_008,
            "peak_bytes": 33_500_000,
            "noisy": False,
            "met": True,
        },
        "yardstick": {
            "runtime": "openvino",
            "version": "2026.4.1",
            "threads": 1,
            "batch": 1,
            "latency_s": 1.82e-3,
            "candidates": {"openvino": 1.82e-3, "onnxruntime": 2.41e-3},
        },
        "layers": layers,
        "substituted": [
            {
                "name": "layer1.0.add",
                "asked": "int8",
                "executed": "fp32",
                "why": "the runtime fuses this addition only between int8 producers",
            }
        ],
        "why": {
            "share": {"layers": 0.81, "conversions": 0.12, "other": 0.07},
            "layers": [{"name": "layer3.2.conv1", "time_s": 8e-5, "rate": 0.31, "reason": "waits for memory"}],
            "steps": [{"group": "conv1", "channels": 16, "useful": [8, 16]}],
        },
        "predictor": {"skipped": 9, "guessed": 40, "mape": 0.061, "spearman": 0.97},
        "also": {
            "targets": ["host", "macs"],
            "score": {"host": {"host": 0.8, "macs": None}, "macs": {"host": 0.7, "macs": 0.75}},
            "policies": {"host": [{"number": 3, "score": 0.8, "ratio": {"host": 0.2, "macs": 0.3}}], "macs": []},
            "diagonal_best": ["host", "macs"],
        },
        "peers": [{"name": "torch-pruning", "ratio": 0.31, "accuracy": 0.88}],
        "trials": points,
        "front": sorted(front),
        "chosen": max(feasible, key=lambda t: t["score"])["number"] if feasible else None,
        "history": [
            {"epoch": e, "loss": 0.9 / e**0.5 + rng.random() * 0.02, "accuracy": 0.9131 - 0.12 / e}
            for e in range(1, 21)
        ],
        "sensitivity": [
            {"group": g, "kept_fraction": f, "kl": rng.random() * (1.05 - f)}
            for g in ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.2.conv1")
            for f in (0.75, 0.5, 0.25)
        ],
        "images": {"search": 1000, "calibration": 512, "test": 10000},
        "frozen_groups": [{"group": "fc", "reason": "its outputs are the classes"}],
        "commands": ["netfit bench runs/r20/model/model.xml", "netfit apply resnet20 runs/r20/policy.toml"],
        "versions": {"netfit": "0.1.0", "torch": "2.13.0", "openvino": "2026.4.1", "optuna": "5.0.0"},
        "host": {
            "cpu": "Some CPU @ 2.7 GHz",
            "flags": ["avx2", "avx512_vnni", "amx_int8"],
            "cores": 2,
            "governor": None,
        },
        "seed": 0,
        "command": "netfit compress resnet20 --data cifar10 --target host --latency 0.25",
    }


def _layers(rng: random.Random) -> list[dict[str, Any]]:
    shapes = [("conv1", 16)]
    shapes += [(f"layer{s}.{b}.conv{c}", 8 << s) for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    rows = []
    for name, channels in shapes:
        kept, precision = max(8, 8 * rng.randint(1, channels // 8)), rng.choice(["int8", "int8", "int8", "fp32"])
        time, macs = rng.uniform(70e-6, 110e-6), 2_359_296
        rows.append(
            {
                "name": name,
                "kind": "conv2d",
                "channels": channels,
                "kept": kept,
                "asked": precision,
                "executed": precision,
                "macs_before": macs,
                "macs_after": macs * kept // channels,
                "time_before_s": time,
                "time_after_s": time * kept / channels * (0.35 if precision == "int8" else 1),
            }
        )
    return [*rows, {"name": "fc", "kind": "linear", "channels": 10, "kept": 10, "asked": "fp32", "executed": "fp32"}]


def _trial(number: int, rng: random.Random) -> dict[str, Any]:
    origin = "greedy" if number < 15 else "random" if number < 30 else "tpe"
    ratio = (
        1.0 - number * 0.05
        if origin == "greedy"
        else rng.uniform(0.12, 0.9)
        if origin == "random"
        else rng.gauss(0.26, 0.04)
    )
    ceiling = 0.91 - 0.07 / max(ratio, 0.1) ** 1.1
    score = max(0.1, ceiling - abs(rng.gauss(0, 0.25 if origin == "random" else 0.05)))
    return {"number": number, "origin": origin, "ratio": ratio, "score": score, "feasible": ratio <= 0.25}


def _front(trials: list[dict[str, Any]]) -> set[int]:
    best, front = -1.0, set()
    for t in sorted(trials, key=lambda t: (t["ratio"], -t["score"])):
        if t["score"] > best:
            best, front = t["score"], front | {t["number"]}
    return front
