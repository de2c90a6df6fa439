"""Structured layers against dense ones, against peers, and by what they learn; one thread, ratios inside one run.

The peers are compared where they can be imported; they are kept apart from netfit's own environment:
``pip install --target build/peers --no-deps torch-structured==1.3.0 lazylinop==1.24.28 einops pandas python-dateutil
six pytz tzdata``, then ``PYTHONPATH=build/peers python -m benchmarks.structured``.
"""

import operator
import sys
import time
import types
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._common import interleave, median_ratio, record
from netfit.structured import (
    ButterflyLinear,
    KSChain,
    KSLinear,
    LowRankLinear,
    MonarchConv2d,
    MonarchLinear,
    PixelflyLinear,
    ks_multiply,
    project,
)

REPEATS = 9
LEAST_S = 4e-3  # one timed turn holds as many calls


def row(check: str, value: float, goal: float, most: bool = False) -> dict[str, Any]:
    """One line of the table."""
    return {"check": check, "value": value, "goal": goal, "met": value <= goal if most else value >= goal}


def repeated(call: Callable[[], object]) -> tuple[Callable[[], object], int]:
    """The call as often as makes a turn long enough to be timed."""
    call()
    start = time.process_time()
    call()
    count = max(1, round(LEAST_S / max(time.process_time() - start, 1e-6)))

    def turn() -> None:
        for _ in range(count):  # results are dropped at once: kept ones would all need fresh memory pages
            call()

    return turn, count


def times(calls: Mapping[str, Callable[[], object]], yardstick: str) -> dict[str, float]:
    """Median over the turns of the yardstick's CPU time over each candidate's."""
    prepared = {name: repeated(call) for name, call in calls.items()}
    found = interleave({name: call for name, (call, _) in prepared.items()}, REPEATS, clock=time.process_time)
    each = {name: [s / prepared[name][1] for s in seconds] for name, seconds in found.items()}
    return {name: median_ratio(each[yardstick], seconds).median for name, seconds in each.items() if name != yardstick}


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inference() -> list[dict[str, Any]]:
    """Item 1: batch-first, 128 samples."""
    rows = []
    for n, goal in ((256, 2.0), (1024, 8.0), (4096, 20.0)):
        x, dense = seeded(128, n), nn.Linear(n, n)
        layer = ButterflyLinear(n, n, execute="fused").eval()
        monarch = MonarchLinear(n, n, execute="fused").eval()
        with torch.no_grad():
            calls = {"dense": partial(dense, x), "butterfly": partial(layer, x), "monarch": partial(monarch, x)}
            found = times(calls, "dense")
        rows.append(row(f"inference, n={n}, B=128: butterfly, times dense", found["butterfly"], goal))
        rows.append(row(f"inference, n={n}, B=128: Monarch, times dense", found["monarch"], goal))
    return rows


def training() -> list[dict[str, Any]]:
    """Item 2: forward and backward pass, 256 samples; a butterfly multiplies its factors out in every step."""
    rows = []
    goals = {256: {"monarch": 3.0, "butterfly": 1.2}, 1024: {"monarch": 12.0, "butterfly": 6.0}}
    for n, goal in (goals | {4096: {"butterfly": 12.0}}).items():
        x, g = seeded(256, n).requires_grad_(), seeded(256, n, seed=1)
        layers: dict[str, nn.Module] = {"dense": nn.Linear(n, n), "butterfly": ButterflyLinear(n, n)}
        layers["monarch"] = MonarchLinear(n, n)

        def step(layer: nn.Module, x: Tensor = x, g: Tensor = g) -> None:
            torch.autograd.grad(layer(x), [x, *layer.parameters()], g)

        found = times({name: lambda m=m: step(m) for name, m in layers.items()}, "dense")
        rows += [
            row(f"training, n={n}, B=256: {name}, times dense", found[name], wanted) for name, wanted in goal.items()
        ]
    return rows


def automatic() -> list[dict[str, Any]]:
    """Item 2, second half: the worst that ``execute="auto"`` does against `nn.Linear`."""
    worst, where = 0.0, ""
    cases = [(n, b) for n in (64, 128, 256, 512, 1024, 2048) for b in (1, 16, 128, 1024)] + [(8192, 1), (8192, 16)]
    rows = []
    for n, batch in cases:
        x, dense, layer = seeded(batch, n), nn.Linear(n, n), MonarchLinear(n, n).eval()
        with torch.no_grad():
            slower = 1 / times({"dense": partial(dense, x), "auto": partial(layer, x)}, "dense")["auto"]
        if slower > worst:
            worst, where = slower, f"n={n}, B={batch}"
        if n == 64:
            rows.append(row(f"auto, n=64, B={batch}: time over nn.Linear's", slower, 1.05, most=True))
    rows.append(row(f"auto, worst of {len(cases)} sizes ({where}): time over nn.Linear's", worst, 1.05, most=True))
    return rows


def exactness() -> list[dict[str, Any]]:
    """Item 3: largest difference from the dense product, relative."""
    worst = {torch.float32: 0.0, torch.float64: 0.0}
    for dtype in worst:
        for n, m in ((1000, 10), (300, 700), (512, 512)):
            for layer in (ButterflyLinear(n, m, dtype=dtype), MonarchLinear(n, m, dtype=dtype)):
                x = seeded(64, n).to(dtype)
                expected = F.linear(x, layer.to_dense(), layer.bias)
                off = float((layer(x) - expected).detach().abs().max() / expected.detach().abs().max())
                worst[dtype] = max(worst[dtype], off)
    return [
        row("product over dense, float32, relative difference", worst[torch.float32], 1e-5, most=True),
        row("product over dense, float64, relative difference", worst[torch.float64], 1e-12, most=True),
    ]


def convolutions() -> list[dict[str, Any]]:
    """Item 6: nblocks=8, forward; a 1x1 convolution decides by itself."""
    rows = []
    for channels, size in ((128, 16), (256, 8)):
        x = seeded(16, channels, size, size)
        dense = nn.Conv2d(channels, channels, 3, padding=1)
        layer = MonarchConv2d(channels, channels, 3, 8, padding=1).eval()
        with torch.no_grad():
            found = times({"dense": partial(dense, x), "monarch": partial(layer, x)}, "dense")
        rows.append(row(f"conv 3x3, {channels} channels, {size}^2: times dense", found["monarch"], 5.0))
    for channels, size in ((64, 16), (256, 8), (1024, 4)):
        x = seeded(16, channels, size, size)
        dense, layer = nn.Conv2d(channels, channels, 1), MonarchConv2d(channels, channels, 1, 8).eval()
        with torch.no_grad():
            found = times({"dense": partial(dense, x), "monarch": partial(layer, x)}, "dense")
        rows.append(row(f"conv 1x1, {channels} channels, {size}^2: times dense", found["monarch"], 1.0))
    return rows


def projection() -> list[dict[str, Any]]:
    """Item 4: closed form on planted structures, and its time."""
    rows = []
    planted = {"Monarch 768 -> 256": KSChain.monarch(768, 256), "butterfly 1024": KSChain.butterfly(1024)}
    for name, chain in planted.items():
        factors = [seeded(*p.shape, seed=i) / p.c**0.5 for i, p in enumerate(chain.patterns)]
        weight = ks_multiply(torch.eye(chain.in_features), factors, layout="feature_first")
        rows.append(row(f"projection of a planted {name}: error", project(weight, chain).rel_error, 1e-5, most=True))
    start = time.process_time()
    project(seeded(4096, 4096), KSChain.butterfly(4096))
    return [
        *rows,
        row("projection onto a butterfly, n=4096: CPU seconds", time.process_time() - start, 30.0, most=True),
    ]


class OneHidden(nn.Module):
    """1024 - 1024 - 10, the network of the published comparison."""

    def __init__(self, hidden: nn.Module) -> None:
        super().__init__()
        self.hidden, self.head = hidden, nn.Linear(1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1024) -> (batch, 10)."""
        return self.head(torch.relu(self.hidden(x)))


def one_hidden_layer() -> list[dict[str, Any]]:
    """Item 5: scikit-learn's digits at 32 x 32, two seeds, equal epochs."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    x = F.interpolate(images, size=(32, 32), mode="bilinear").flatten(1) - 0.5
    y = torch.tensor(digits.target)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: nn.Linear(1024, 1024),
        "tied butterfly": lambda: ButterflyLinear(1024, 1024, parametrization="tied"),
        "free butterfly": lambda: ButterflyLinear(1024, 1024),
        "Monarch": lambda: MonarchLinear(1024, 1024),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for seed in range(2):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        train, test = ((x[part], y[part]) for part in (order[:1400], order[1400:]))
        for name, make in kinds.items():
            torch.manual_seed(seed)
            found[name].append(fit(OneHidden(make()), train, test, 15))
    mean = {name: [sum(v) / len(v) for v in zip(*runs, strict=True)] for name, runs in found.items()}
    accuracy, seconds, params = mean.pop("dense")
    rows = [row("digits at 32^2: accuracy of dense, %", 100 * accuracy, 0.0)]
    for name, (right, spent, size) in mean.items():
        rows.append(row(f"digits at 32^2, {name}: points of accuracy lost", 100 * (accuracy - right), 1.0, most=True))
        rows.append(row(f"digits at 32^2, {name}: training time over dense", spent / seconds, 0.6, most=True))
        if name == "tied butterfly":
            rows.append(row(f"digits at 32^2, {name}: % fewer parameters", 100 * (1 - size / params), 98.5))
    return rows


def fit(net: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int) -> list[float]:
    """Test accuracy, CPU seconds of training, parameters."""
    x, y = train
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    start = time.process_time()
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
        schedule.step()
    spent = time.process_time() - start
    with torch.no_grad():
        right = float((net.eval()(test[0]).argmax(1) == test[1]).float().mean())
    return [right, spent, float(sum(p.numel() for p in net.parameters()))]


def mnist() -> list[dict[str, Any]]:
    """784 - 1024 - 10 on MNIST: structures trained from the start, one seed, two epochs of 10 000 images."""
    from netfit.data import load
    from netfit.errors import DataNotFound

    try:
        sets = [load("mnist", split) for split in ("train", "test")]
    except DataNotFound as e:
        print(f"MNIST is not compared: {e}")
        return []
    train, test = ((x.flatten(1), y) for x, y in (s.tensors() for s in sets))
    train = train[0][:10_000], train[1][:10_000]
    kinds: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: nn.Linear(784, 1024),
        "Monarch": lambda: MonarchLinear(784, 1024),
        "butterfly": lambda: ButterflyLinear(784, 1024),
        "tied butterfly": lambda: ButterflyLinear(784, 1024, parametrization="tied"),
        "pixelated butterfly": lambda: PixelflyLinear(784, 1024, rank=8),
        "low rank": lambda: LowRankLinear(784, 1024, 28),
    }
    rows, base = [], [0.0, 0.0, 0.0]
    for name, make in kinds.items():
        torch.manual_seed(0)
        right, spent, size = fit(OneHidden(make()), train, test, 2)
        if name == "dense":
            base = [right, spent, size]
            rows.append(row("MNIST: accuracy of dense, %", 100 * right, 0.0))
            continue
        label = f"MNIST, {name} ({size / base[2]:.1%} of the parameters, {spent / base[1]:.2f} of the time)"
        rows.append(row(f"{label}: points of accuracy lost", 100 * (base[0] - right), 1.0, most=True))
    return rows


def lazylinop() -> list[dict[str, Any]]:
    """Items 1 and 4 against lazylinop: fused and unfused products of a butterfly, and its factorization."""
    try:
        import numpy as np
        from lazylinop.butterfly import Chain, ksd, ksm
    except ImportError as e:
        print(f"lazylinop is not compared: {e}")
        return []
    rows = []
    for n, batch in ((256, 256), (1024, 256), (4096, 64)):
        chain = KSChain.butterfly(n)
        layer = KSLinear(n, n, chain, bias=False, execute="fused").eval()
        x = seeded(n, batch)
        plain = x.numpy()
        # Their first pattern is the leftmost factor, and their values are (a, b, c, d).
        both = {"factors": layer.values(), "fused": [*layer._ready().factors]}
        theirs = {
            name: ksm([np.ascontiguousarray(f.detach().permute(0, 2, 3, 1).numpy()) for f in reversed(values)])
            for name, values in both.items()
        }
        ours = layer._ready().factors
        with torch.no_grad():
            product = ks_multiply(x, ours, layout="feature_first")
            assert np.allclose(theirs["fused"] @ plain, product.numpy(), atol=1e-4)
            calls = {name: partial(operator.matmul, op, plain) for name, op in theirs.items()}
            calls["netfit"] = partial(ks_multiply, x, ours, layout="feature_first")
            found = times(calls, "fused")
        rows.append(row(f"n={n}, B={batch}: times lazylinop fused", found["netfit"], 0.95))
        rows.append(row(f"n={n}, B={batch}: times lazylinop unfused", found["netfit"] / found["factors"], 4.0))
    weight = seeded(1024, 1024)
    start = time.process_time()
    near = ksd(weight.numpy(), Chain.square_dyadic((1024, 1024)))
    middle = time.process_time()
    ours_found = project(weight, KSChain.butterfly(1024))
    spent = time.process_time() - middle
    error = float(np.linalg.norm(near.toarray() - weight.numpy()) / np.linalg.norm(weight.numpy()))
    rows.append(row("projection, n=1024: times ksd", (middle - start) / spent, 3.0))
    return [*rows, row("projection of noise, n=1024: error over ksd's", ours_found.rel_error / error, 1.01, most=True)]


def torch_structured() -> list[dict[str, Any]]:
    """Item 1 against torch-structured, whose import asks for triton even where there is no GPU."""
    try:
        import torch._inductor

        stub = types.ModuleType("triton")
        stub.jit = stub.autotune = lambda *a, **k: lambda f: f  # type: ignore[attr-defined]
        stub.Config = lambda *a, **k: None  # type: ignore[attr-defined]
        stub.language = types.ModuleType("triton.language")  # type: ignore[attr-defined]
        sys.modules.setdefault("triton", stub)
        sys.modules.setdefault("triton.language", stub.language)
        from torch_structured import Butterfly
    except Exception as e:  # a package made for GPUs may fail in many ways without one
        print(f"torch-structured is not compared: {e!r}")
        return []
    rows = []
    for n in (256, 1024, 2048):
        x, layer, other = seeded(128, n), ButterflyLinear(n, n, execute="fused").eval(), Butterfly(n, n)
        with torch.no_grad():
            found = times({"theirs": partial(other, x), "netfit": partial(layer, x)}, "theirs")
        rows.append(row(f"inference, n={n}, B=128: times torch-structured", found["netfit"], 60.0))
    return rows


PARTS = (
    inference, training, exactness, convolutions, projection, automatic, lazylinop, torch_structured,
    one_hidden_layer, mnist,
)  # fmt: skip


def main() -> None:
    """Print and keep one row per figure; those that are missed stay in the table."""
    torch.set_num_threads(1)
    rows = []
    for part in PARTS:
        for found in part():
            print(f"{found['check']}: {found['value']:.4g} (goal {found['goal']:g})", flush=True)
            rows.append(found)
    record("structured", rows, repeats=REPEATS, threads=1, clock="CPU seconds")


if __name__ == "__main__":
    main()
