"""Finding channel groups in deep networks: seconds, and growth against depth (compress.md, acceptance 11)."""

import gc
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._common import interleave, median_ratio, record
from netfit.compress import plan_channels

DEPTHS = (25, 50, 100, 200)
LIMIT_S, LIMIT_GROWTH = 20.0, 1.3


class Block(nn.Module):
    """Two convolutions around a functional add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """One residual block."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def residual(layers: int, width: int = 32) -> nn.Module:
    """A ResNet of one stage: the residual stream is one group through the whole depth."""
    blocks = (Block(width) for _ in range((layers - 1) // 2))
    return nn.Sequential(nn.Conv2d(3, width, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def chain(layers: int, width: int = 32) -> nn.Module:
    """A plain stack: as many groups as layers."""
    widths = [3] + [width] * (layers - 1)
    pairs = ((nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(widths))
    stack = (module for pair in pairs for module in pair)
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Dense(nn.Module):
    """DenseNet: blocks of twelve concatenations between transitions."""

    def __init__(self, layers: int, growth: int = 4, start: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, start, 3)
        self.convs = nn.ModuleList(nn.Conv2d(start + growth * (i % 12), growth, 3, padding=1) for i in range(layers))
        self.shrink = nn.ModuleList(nn.Conv2d(start + growth * 12, start, 1) for _ in range(layers // 12))

    def forward(self, x: Tensor) -> Tensor:
        """Mean over positions."""
        x = self.stem(x)
        for i, conv in enumerate(self.convs):
            x = torch.cat([x, F.relu(conv(x))], 1)
            if i % 12 == 11:
                x = self.shrink[i // 12](x)
        return x.mean((2, 3))


def main() -> None:
    """Print and keep one row for each architecture and depth; fail above the limits."""
    torch.set_num_threads(1)
    x = torch.randn(1, 3, 16, 16)
    rows = []
    for build in (residual, chain, Dense):
        networks = {n: build(n).eval() for n in DEPTHS}
        calls = {str(n): partial(plan_channels, networks[n], x) for n in DEPTHS}
        gc.collect()
        gc.freeze()  # full collections of all of torch would otherwise fall on the longest calls
        seconds = interleave(calls, repeats=5)
        for n in DEPTHS:
            growth = median_ratio(seconds[str(n)], seconds[str(DEPTHS[0])]).median / (n / DEPTHS[0])
            row = {"network": build.__name__, "layers": n, "groups": len(plan_channels(networks[n], x))}
            rows.append({**row, "seconds": min(seconds[str(n)]), "growth_over_linear": growth})
    record("analysis_scale", rows, limit_s=LIMIT_S, limit_growth=LIMIT_GROWTH)
    worst = max(rows, key=lambda row: row["growth_over_linear"])
    assert max(row["seconds"] for row in rows) <= LIMIT_S, "planning takes too long"
    assert worst["growth_over_linear"] <= LIMIT_GROWTH, f"planning grows faster than the depth: {worst}"


if __name__ == "__main__":
    main()
