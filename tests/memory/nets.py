"""Small networks with every way of saving a tensor."""

import torch
import torch.nn.functional as F
from torch import nn

from netfit.memory import TrainingStep


class Residual(nn.Module):
    """Convolutions, BatchNorm, ReLU (in place or not), a shared tensor, max and average pooling."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.a, self.bn_a = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.b, self.bn_b = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.side = nn.Conv2d(16, 16, 1)
        self.act = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn(self.stem(x)))
        y = self.bn_b(self.b(self.act(self.bn_a(self.a(x)))))
        x = self.pool(self.act(y + self.side(x)))
        return self.fc(F.avg_pool2d(x, 8).flatten(1))


class Tokens(nn.Module):
    """LayerNorm, attention, GELU, dropout, a scale and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(32), nn.MultiheadAttention(32, 2, batch_first=True)
        self.fc1, self.fc2, self.drop = nn.Linear(32, 64), nn.Linear(64, 32), nn.Dropout(0.2)
        self.scale = nn.Parameter(torch.full((32,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.scale * self.drop(self.fc2(F.gelu(self.fc1(x))))


class Recurrent(nn.Module):
    """Four layers of LSTM and a readout of the last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(16, 64, num_layers=4, batch_first=True), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class FunctionalUNet(nn.Module):
    """Down, up and a concatenation, everything but the weights functional."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(0.1 * torch.randn(s)) for s in ((12, 3, 3, 3), (24, 12, 3, 3)))
        self.w3 = nn.Parameter(0.1 * torch.randn(3, 36, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = F.relu(F.conv2d(x, self.w1, padding=1))
        low = F.silu(F.conv2d(F.max_pool2d(top, 2), self.w2, padding=1))
        return F.conv2d(torch.cat([top, F.interpolate(low, scale_factor=2.0)], 1), self.w3, padding=1)


def images(n: int = 8, size: int = 16) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(5))


def step_of(name: str) -> TrainingStep:
    """A step of one of the networks, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = {
            "residual": Residual, "inplace": lambda: Residual(True), "tokens": Tokens, "lstm": Recurrent,
            "unet": FunctionalUNet,
        }[name]().train()  # fmt: skip
        if name in ("residual", "inplace"):
            return TrainingStep(net, images(), torch.arange(8) % 5, F.cross_entropy)
        if name == "unet":
            return TrainingStep(net, images(), images(), F.mse_loss)
        x = torch.randn(8, 40, 32 if name == "tokens" else 16)
        return TrainingStep(net, x) if name == "tokens" else TrainingStep(net, x, torch.arange(8) % 3, F.cross_entropy)


NETS = ("residual", "inplace", "tokens", "lstm", "unet")
