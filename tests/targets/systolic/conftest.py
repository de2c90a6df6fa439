"""Networks of the systolic tests, traced once."""

import pytest
import torch
from torch import nn

from netfit.workload import trace


class Separable(nn.Module):
    """A dense, a depthwise, a grouped and a pointwise convolution, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(32, 24, 1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        x = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        return self.fc(self.pointwise(self.grouped(x)).mean((2, 3)))


class Attention(nn.Module):
    """One block of a transformer: two products in one operator."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


def _traced(model, *shape):
    return trace(model.eval(), torch.zeros(shape))


@pytest.fixture(scope="session")
def nets():
    """Name to workload: convolutions, attention, and multi-layer perceptrons of several widths."""
    found = {"separable": _traced(Separable(), 1, 3, 12, 12), "attention": _traced(Attention(), 2, 9, 32)}
    for width in (17, 64, 200, 333):
        net = nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, 10))
        found[f"mlp{width}"] = _traced(net, 4, 40)
    return found


@pytest.fixture
def separable():
    torch.manual_seed(0)
    return Separable().eval()
