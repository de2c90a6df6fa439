"""Training in less memory: peaks, prices and promises; one thread, ratios inside one run.

``--small`` runs everything on small networks (a minute or two); ``--only NAME`` one part. Batches are CIFAR-10 images,
enlarged where the network asks for it, because errors depend on the values. An interrupted run goes on with the next
part (runs/memory-study, or $NETFIT_MEMORY_RUN).
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks._common import interleave, median_ratio, record
from benchmarks.systolic import Bottleneck
from netfit import data
from netfit.memory import (
    BudgetError,
    TrainingStep,
    compress_saved,
    compressed_saved,
    grad_fidelity,
    measure,
    plan,
    tune_allocator,
)
from netfit.memory.codecs import BlockSparse, weight_gradient
from netfit.models import build
from netfit.models._resmlp import ResMLPBlock
from netfit.runs import Run

RUN = Path(os.environ.get("NETFIT_MEMORY_RUN", "runs/memory-study"))
REPEATS = 7
Rows = list[dict[str, Any]]


def row(check: str, value: float, goal: float | None = None, most: bool = False) -> dict[str, Any]:
    """One figure beside its goal."""
    met = "" if goal is None else value <= goal if most else value >= goal
    return {"check": check, "value": value, "goal": "" if goal is None else goal, "met": met}


def batch(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Real images and their classes."""
    x, y = data.load("cifar10").tensors(range(n))
    return (x if size == 32 else F.interpolate(x, size, mode="bilinear")), y


class Blocks(nn.Sequential):
    """A network that runs each of its parts under torch's checkpoint when asked to."""

    checkpointed = False

    def forward(self, x: Tensor) -> Tensor:
        """One part after the other."""
        for part in self:
            heavy = self.checkpointed and isinstance(part, Bottleneck | ResMLPBlock)
            x = checkpoint(part, x, use_reentrant=False) if heavy else part(x)
        return x


def resnet50(small: bool) -> TrainingStep:
    """ResNet-50, 16 images of 128 x 128."""
    blocks, cin = [], 64
    depths = (1, 1, 1, 1) if small else (3, 4, 6, 3)
    for width, depth, stride in zip((64, 128, 256, 512), depths, (1, 2, 2, 2), strict=True):
        for i in range(depth):
            blocks.append(Bottleneck(cin, width, stride if i == 0 else 1))
            cin = 4 * width
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    net = Blocks(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 10))
    return step_of(net, 4 if small else 16, 64 if small else 128)


class Tokens(nn.Module):
    """Patches of an image as tokens."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, tokens, dim)."""
        return self.embed(x).flatten(2).transpose(1, 2)


class Readout(nn.Module):
    """Mean over tokens and classes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) -> (batch, 10)."""
        return self.fc(x.mean(1))


def resmlp(small: bool) -> TrainingStep:
    """Twelve ResMLP blocks of 256 channels on 256 tokens."""
    depth, dim, n = (4, 64, 8) if small else (12, 256, 16)
    net = Blocks(Tokens(dim, 2), *[ResMLPBlock(dim, 256) for _ in range(depth)], Readout(dim))
    return step_of(net, n, 32)


def resnet18(small: bool) -> TrainingStep:
    """ResNet-18 for small images, 64 of them."""
    return step_of(build("resnet20" if small else "resnet18"), 32 if small else 64, 32)


def step_of(net: nn.Module, n: int, size: int) -> TrainingStep:
    """A step after a little training: gradients of fresh weights are of another kind."""
    x, y = batch(n, size)
    step = TrainingStep(net.train(), x, y, F.cross_entropy, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9))
    for _ in range(3):
        step()
    return step


def peaks(small: bool) -> Rows:
    """Item 8: process peaks of the papers' ways and of the default plan."""
    rows: Rows = []
    goals = (("ResNet-50", resnet50, "pool2", 0.22, 0.48), ("ResMLP", resmlp, "bsr10", 0.32, 0.60))
    for name, make, word, paper, default in goals:
        step = make(small)
        base = measure(step)
        whole = base.process_peak or base.peak
        rows.append(row(f"{name}: process peak, MB", whole / 1e6))
        rows.append(row(f"{name}: process peak over allocator's", whole / base.peak, 1.03, most=True))
        for policy in ("lossless", word):
            found = measure(step, policy=policy, repeats=0)
            goal = paper if policy == word else None
            rows.append(row(f"{name} {policy}: part saved", 1 - (found.process_peak or found.peak) / whole, goal))
        made = plan(step)
        saved = 1 - (made.after.process_peak or made.after.peak) / whole
        rows.append(row(f"{name} default plan: part saved", saved, default))
        rows.append(row(f"{name} default plan: gradient error", made.error, 0.1, most=True))
        # As the goals were found: no momentum, which no codec touches and which doubles what weights take.
        bare = replace(step, optimizer=None)
        plain, paper_s, ours = (measure(bare, policy=p, repeats=0).peak for p in (None, word, made.policy))
        rows.append(row(f"{name} without momentum, {word}: part saved", 1 - paper_s / plain, paper))
        rows.append(row(f"{name} without momentum, default plan: part saved", 1 - ours / plain, default))
    return rows


def promises(small: bool) -> Rows:
    """Items 9 and 10: budgets kept, predictions, planning time, error at equal bytes."""
    rows: Rows = []
    for name, make in (("ResNet-18", resnet18), ("ResMLP", resmlp)):
        step = make(small)
        base = measure(step)
        for part in (0.6, 0.45):
            what = f"{name}, budget {part:g} of the peak"
            start = time.process_time()
            try:
                made = plan(step, part)
            except BudgetError as e:
                print(e)
                rows.append(row(f"{what}: refused; its least over the peak", plan(step).after.peak / base.peak))
                continue
            steps = (time.process_time() - start) / max(base.seconds, 1e-9)
            rows.append(row(f"{what}: used", made.after.peak / (part * base.peak), 1.0, most=True))
            rows.append(row(f"{what}: predicted over measured peak", made.predicted_peak / made.after.peak))
            rows.append(row(f"{what}: gradient error", made.error))
            rows.append(row(f"{what}: predicted over measured error", made.predicted_error / max(made.error, 1e-9)))
            rows.append(row(f"{what}: planning in this process, steps", steps, 80, most=True))
        pooled = measure(step, policy="pool2", repeats=0).peak
        same = plan(step, pooled, max_grad_error=1.0)
        ratio = same.error / grad_fidelity(step, "pool2").total
        rows.append(row(f"{name}: error over pool2's at its bytes", ratio, 1 / 20, most=True))
    return rows


def times(small: bool) -> Rows:
    """Items 11 and 12: the price in time, beside torch's checkpoint."""
    rows: Rows = []
    step = resnet18(small)
    candidates: dict[str, Callable[[], object]] = {"plain": step}
    for word in ("lossless", "q8", "q4"):
        candidates[word] = _under(step, word)
    seconds = interleave(candidates, REPEATS, clock=time.process_time)
    for word in list(candidates)[1:]:
        ratio = median_ratio(seconds[word], seconds["plain"])
        rows.append(row(f"ResNet-18 {word}: step time", ratio.median, 1.12 if word == "q4" else None, most=True))
    return rows + _against_checkpoint(small) + _block_sparse(small)


def _under(step: TrainingStep, policy: Any) -> Callable[[], object]:
    def call() -> None:
        with compressed_saved(step.model, policy):
            step()

    return call


def _against_checkpoint(small: bool) -> Rows:
    step = resnet50(small)

    def checkpointed() -> None:
        step.model.checkpointed = True  # type: ignore[assignment]
        try:
            step()
        finally:
            step.model.checkpointed = False  # type: ignore[assignment]

    held = sum(step.held().values())
    theirs = measure(checkpointed, repeats=0).peak + held
    made = plan(step, theirs, max_grad_error=1.0)
    runs = {"checkpoint": checkpointed, "netfit": _under(step, dict(made.words)), "plain": step}
    seconds = interleave(runs, REPEATS, clock=time.process_time)
    ratio = median_ratio(seconds["netfit"], seconds["checkpoint"])
    return [
        row("ResNet-50: checkpoint a block, peak over plain", theirs / made.base.peak),
        row("ResNet-50: step time over checkpoint's, at its peak", ratio.median, 1.0, most=True),
        row("ResNet-50: gradient error of that plan", made.error),
    ]


def _block_sparse(small: bool) -> Rows:
    rows: Rows = []
    n, features = (1024, 256) if small else (4096, 1024)
    x, gradient = torch.randn(n, features), torch.randn(n, features)
    for density in (0.25, 0.1):
        packed = BlockSparse(8, density).pack(x)
        runs = {
            "dense": lambda: gradient.T @ x,
            "blocks": lambda p=packed: weight_gradient(gradient, *p.tensors, features),
        }
        seconds = interleave(runs, REPEATS, clock=time.process_time)
        speed = median_ratio(seconds["dense"], seconds["blocks"]).median
        rows.append(
            row(f"weight gradient, density {density:g}: speed over dense", speed, 2.0 if density == 0.1 else None)
        )
    return rows


def scale(small: bool) -> Rows:
    """Item 14: planning time from 8 to 64 blocks."""
    spent = []
    for depth in (2, 16) if small else (8, 64):
        net = Blocks(Tokens(32, 4), *[ResMLPBlock(32, 64) for _ in range(depth)], Readout(32))
        step = step_of(net, 8, 32)
        start = time.process_time()
        plan(step)
        spent.append(time.process_time() - start)
    return [row("planning time, eight times the blocks", spent[1] / spent[0], 10.0, most=True)]


def compiled(small: bool) -> Rows:
    """Item 12: under torch.compile, BatchNorm inputs in 4 bits by the module engine."""
    step = resnet18(True)
    peaks = []
    for policy in (None, "q4"):
        torch._dynamo.reset()
        handle = compress_saved(step.model, policy, engine="modules") if policy else None
        peaks.append(measure(replace(step, model=torch.compile(step.model)), isolate=False, repeats=0).peak)
        if handle is not None:
            handle.remove()
    return [row("compiled ResNet-20, BatchNorm in q4: peak over plain compile's", peaks[1] / peaks[0], 0.85, most=True)]


PARTS = {"peaks": peaks, "promises": promises, "times": times, "scale": scale, "compiled": compiled}


def main() -> None:
    """Print and keep one row per figure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--small", action="store_true")
    options.add_argument("--only", choices=list(PARTS), action="append")
    chosen, _ = options.parse_known_args()  # python -m benchmarks memory has words of its own
    torch.set_num_threads(1)
    tune_allocator()  # a measured child inherits this process's heap, and resident sets would count its holes
    torch.manual_seed(0)
    rows: Rows = []
    called, parts = "memory" + ("_small" if chosen.small else ""), chosen.only or list(PARTS)
    settings = {"repeats": REPEATS, "small": chosen.small, "parts": ",".join(parts)}
    with Run.open(RUN.with_name(f"{RUN.name}{called.removeprefix('memory')}"), "memory-study", settings, 0) as run:
        for i, name in enumerate(parts):
            rows += run.stage(name, partial(PARTS[name], chosen.small))
            record(called, rows, repeats=REPEATS, threads=1, parts=",".join(parts[: i + 1]))


if __name__ == "__main__":
    main()
