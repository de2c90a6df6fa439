"""The network contracts are checked on unless a subclass brings its own: every common kind of place, and small."""

import torch
import torch.nn.functional as F
from torch import nn


class SmallNet(nn.Module):
    """Convolutions (full, depthwise, strided), BatchNorm, a residual addition, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.down = nn.Conv2d(16, 24, 3, stride=2)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) -> (batch, 5)."""
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.pointwise(F.relu(self.depthwise(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.down(x)), 1)
        return self.head(x.flatten(1))


class Inside(nn.Module):
    """A network under another name, beside a layer that is never called: neither may change what it costs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.unused = nn.Linear(64, 64)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the inner network returns."""
        return self.inner(*inputs)


def small_net() -> nn.Module:
    """The same weights at every call, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallNet().eval()


def small_input() -> torch.Tensor:
    """The same four images at every call."""
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy of everything a model stores."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, with the same keys and types."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )
