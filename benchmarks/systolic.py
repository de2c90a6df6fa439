"""Systolic arrays: exact against a register-level machine and two references, and how fast.

SCALE-Sim runs in the peers' environment (``make peers``) and takes some ten minutes; its counts and CPU seconds are
compared one layer at a time. Times are CPU seconds of one process, which other users of the machine hardly change.
"""

import json
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._common import record
from netfit.models import build
from netfit.targets.systolic import SystolicArray, SystolicConfig, gemm_cost, simulate, sweep
from netfit.workload import Workload, trace

PRODUCTS = 10_000
PEER = Path(".venv-peers/bin/python")
SIZE = 32  # rows and columns of the array that SCALE-Sim simulates
CAMUY = {
    (13, 7, 128, 25, 10, 69): (273, 1725, 690, 68250, 42250),
    (6, 14, 256, 30, 65, 28): (685, 9240, 1820, 166320, 106920),
    (4, 5, 128, 215, 9, 31): (4527, 19995, 1116, 270900, 162540),
    (15, 4, 16, 24, 72, 18): (622, 2160, 3888, 108000, 63000),
}
MOVES = (
    "act_loads", "weight_loads", "result_stores", "accum_writes", "pe_steps", "act_hops", "weight_hops", "sum_hops",
)  # fmt: skip
LEAST_SPEED_UP, LEAST_RATE, MOST_COST_S, MOST_BYTES, MOST_GROWTH = 1e6, 2e7, 1e-3, 400e6, 12.0


class Bottleneck(nn.Module):
    """The block of ResNet-50: a second network of published shape, without its package."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.down = nn.Conv2d(cin, 4 * width, 1, stride, bias=False) if cin != 4 * width or stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One residual block."""
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.down is None else self.down(x)))


def resnet18() -> Workload:
    """At 224 x 224 with the stem for such images; the built-in one is for small images."""
    net = build("resnet18", in_shape=(3, 224, 224), num_classes=1000)
    net.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    net.bn1 = nn.Sequential(net.bn1, nn.MaxPool2d(3, 2, 1))
    return trace(net.eval(), torch.zeros(1, 3, 224, 224))


def resnet50() -> Workload:
    """At 64 x 64: as many layers as at 224, traced in a fraction of the time."""
    blocks, cin = [], 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(depth):
            blocks.append(Bottleneck(cin, width, stride if i == 0 else 1))
            cin = 4 * width
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    return trace(net.eval(), torch.zeros(1, 3, 64, 64))


def vit() -> Workload:
    """Twelve blocks of ViT-Tiny on 65 tokens."""
    layer = nn.TransformerEncoderLayer(192, 3, 768, activation="gelu", batch_first=True, norm_first=True)
    net = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    return trace(net.eval(), torch.zeros(1, 65, 192))


def cpu_s(call: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of a call."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def register_level() -> tuple[int, int]:
    """How many random products the closed forms and the register-level machine agree on, and of how many."""
    rng, agreed = np.random.default_rng(0), 0
    for i in range(PRODUCTS):
        rows, cols = (int(x) for x in rng.integers(1, 9, 2))
        m, n, k = (int(x) for x in rng.integers(1, 13, 3))
        dataflow, load = ("ws", "os", "is")[i % 3], ("overlapped", "serial")[i // 3 % 2]
        config = SystolicConfig(rows, cols, accum_rows=int(rng.integers(2, 21)), dataflow=dataflow, weight_load=load)
        a, w = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
        done, cost = simulate(a, w, config), gemm_cost(m, n, k, config)
        moves = all(done.moves.get(name, 0) == getattr(cost, name) for name in MOVES)
        agreed += bool((done.out == a @ w).all() and done.cycles == cost.cycles and moves)
    return agreed, PRODUCTS


def camuy() -> int:
    """How many of the reference's check values are equal."""
    equal = 0
    for (cols, rows, accum_rows, m, n, k), expected in CAMUY.items():
        cost = gemm_cost(m, n, k, SystolicConfig(rows, cols, accum_rows=accum_rows), compat="camuy")
        found = cost.cycles, cost.act_loads, cost.weight_loads, cost.intra_pe, cost.inter_pe
        equal += tuple(map(int, found)) == expected
    return equal


def peer_answers(dataflow: str, gemms: list[tuple[int, ...]]) -> list[dict[str, Any]]:
    """SCALE-Sim's counts, one product at a time."""
    question = json.dumps({"rows": SIZE, "cols": SIZE, "dataflow": dataflow, "gemms": gemms})
    script = Path(__file__).parent / "_scalesim_peer.py"
    done = subprocess.run([PEER, script], input=question, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def scalesim(workload: Workload) -> list[dict[str, Any]]:
    """Equality and speed against SCALE-Sim on every product of a network."""
    if not PEER.exists():
        print(f"SCALE-Sim is not compared: no {PEER}; make peers installs it")
        return []
    gemms = [(g.m, g.n, g.k) for op in workload for g in op.gemms()]
    many = np.tile(np.array(gemms).T, 5000)  # all counters of 105 000 layers in one call
    rows = []
    for dataflow in ("ws", "os", "is"):
        config = SystolicConfig(SIZE, SIZE, dataflow=dataflow)
        answers = {tuple(a["gemm"]): a for a in peer_answers(dataflow, sorted(set(gemms)))}
        # Its output-stationary stores are no count of results: partial tiles are padded in a way of their own.
        counters = ("cycles", "act_loads", "weight_loads", "result_stores")[: 3 if dataflow == "os" else 4]
        for counter in counters:
            found = [getattr(gemm_cost(*g, config, compat="scalesim"), counter) for g in gemms]
            equal = sum(f == answers[g][counter] for f, g in zip(found, gemms, strict=True))
            rows.append(_row(f"SCALE-Sim {dataflow}: products with equal {counter}", float(equal), float(len(gemms))))
        theirs = sum(answers[g]["seconds"] for g in gemms) / len(gemms)
        ours = cpu_s(lambda c=config: gemm_cost(*many, c, compat="scalesim"), 5) / many.shape[1]
        label = f"SCALE-Sim {dataflow}: {theirs:.3g} CPU s a layer over {ours:.2g} here"
        rows.append(_row(label, theirs / ours, LEAST_SPEED_UP))
    return rows


def _row(check: str, value: float, goal: float, most: bool = False) -> dict[str, Any]:
    return {"check": check, "value": value, "goal": goal, "met": value <= goal if most else value >= goal}


def sweeps(workload: Workload) -> list[dict[str, Any]]:
    """Arrays a second, growth and memory. ``workload`` has 21 products, 12 of them different."""
    axis = np.arange(8, 8 + 4 * 316, 4)
    distinct = len({(g.m, g.n, g.k) for op in workload for g in op.gemms()})
    one = cpu_s(lambda: sweep({"net": workload}, {"rows": axis, "cols": axis}), 5)
    rows = [_row("layer x array evaluations a second, equal layers once", len(axis) ** 2 * distinct / one, LEAST_RATE)]
    long = np.arange(8, 8 + 10 * len(axis))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ten = cpu_s(lambda: sweep({"net": workload}, {"rows": long, "cols": axis}), 5)
    extra = 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    rows.append(_row(f"extra bytes of {len(long) * len(axis)} arrays", extra, MOST_BYTES, most=True))
    return [*rows, _row("time of ten times the arrays", ten / one, MOST_GROWTH, most=True)]


def main() -> None:
    """Print and keep one row per acceptance figure; fail where one is missed."""
    torch.set_num_threads(1)
    published = resnet18()
    agreed, products = register_level()
    rows = [
        _row("random products equal to the register-level machine", float(agreed), float(products)),
        _row("Camuy check values equal", float(camuy()), float(len(CAMUY))),
        *sweeps(published),
    ]
    array = SystolicArray(SystolicConfig(128, 128))
    for name, workload in (("ResNet-18", published), ("ResNet-50", resnet50()), ("ViT", vit())):
        seconds = cpu_s(lambda w=workload: [array.cost(w) for _ in range(20)], 10) / 20
        rows.append(_row(f"CPU s of cost(), {name}, {len(workload)} operators", seconds, MOST_COST_S, most=True))
    rows += scalesim(published)
    record("systolic", rows, scalesim_array=f"{SIZE}x{SIZE}", products=products)
    missed = [row["check"] for row in rows if not row["met"]]
    assert not missed, f"missed: {missed}"


if __name__ == "__main__":
    main()
