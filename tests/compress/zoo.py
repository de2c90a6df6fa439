"""Small networks, one for each way in which channels of different layers can depend on each other."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Functional adds, one with a projection and a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.a1, self.a2 = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.b1, self.b2 = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.short, self.bn2 = nn.Conv2d(8, 16, 1, 2), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.a2(F.relu(self.a1(x))))
        x = F.relu(self.bn2(self.b2(F.relu(self.b1(x)))) + self.short(x))
        return self.fc(x.mean((2, 3)))


class MobileNet(nn.Module):
    """Inverted residuals: expand, depthwise, squeeze-excite, project (MobileNetV2 with the gate of V3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU6())
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depth(self.expand(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project(y * gate)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Dense(nn.Module):
    """DenseNet: every layer reads the concatenation of all before it, behind a shared BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.fc = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            parts.append(conv(F.relu(norm(torch.cat(parts, 1)))))
        return self.fc(torch.cat(parts, 1).mean((2, 3)))


class UNet(nn.Module):
    """Skip concatenation around a transposed convolution; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.mid, self.up = nn.Conv2d(12, 12, 3, padding=1), nn.ConvTranspose2d(12, 10, 2, 2)
        self.norm, self.dec = nn.BatchNorm2d(10), nn.Conv2d(18, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.enc(x))
        y = F.relu(self.norm(self.up(F.relu(self.mid(F.relu(self.down(skip)))))))
        return self.head(F.relu(self.dec(torch.cat([y, skip], 1))))


class Shared(nn.Module):
    """One convolution used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.tail, self.fc = nn.Conv2d(8, 10, 3, padding=1), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(3):
            x = F.relu(self.again(x))
        return self.fc(F.relu(self.tail(x)).mean((2, 3)))


class Encoder(nn.Module):
    """A Transformer encoder of two layers over 1-D patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.position = nn.Parameter(torch.randn(1, 5, 16) * 0.1)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(x) + self.position).mean(1))


class Shuffle(nn.Module):
    """ShuffleNetV2 unit: split the channels, transform one half, concatenate, shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch1, self.branch2 = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 3, padding=1)
        self.tail, self.fc = nn.Conv2d(16, 10, 1), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.relu(self.stem(x)).chunk(2, 1)
        right = F.relu(self.branch2(F.relu(self.branch1(right))))
        y = torch.cat([left, right], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(F.relu(self.tail(y)).mean((2, 3)))


class Recurrent(nn.Module):
    """Linear, LSTM, linear, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.pre, self.rnn = nn.Linear(6, 8), nn.LSTM(8, 12, batch_first=True)
        self.post, self.fc = nn.Linear(12, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(F.relu(self.pre(x)))
        return self.fc(F.relu(self.post(y[:, -1])))


class Keyword(nn.Module):
    """Dilated 1-D convolutions over audio features."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv1d(6, 12, 3, padding=1), nn.BatchNorm1d(12)
        self.c2, self.n2 = nn.Conv1d(12, 14, 3, padding=2, dilation=2), nn.BatchNorm1d(14)
        self.c3, self.fc = nn.Conv1d(14, 14, 3, padding=1), nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.n1(self.c1(x)))
        x = F.relu(self.n2(self.c2(x)))
        return self.fc((x + self.c3(x)).mean(2))


class VGG(nn.Sequential):
    """A plain chain; flatten gives every channel nine inputs of the first linear layer."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
            nn.Flatten(), nn.Linear(108, 20), nn.ReLU(), nn.Linear(20, 5),
        )  # fmt: skip


class Grouped(nn.Module):
    """A grouped convolution (ResNeXt) and GroupNorm: channels must leave in equal numbers per group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.up, self.norm = nn.ConvTranspose2d(18, 12, 2, 2, groups=3), nn.BatchNorm2d(12)
        self.tail, self.gn, self.fc = nn.Conv2d(12, 16, 1), nn.GroupNorm(4, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.wide(F.relu(self.stem(x))))
        x = F.relu(self.norm(self.up(x)))
        return self.fc(F.relu(self.gn(self.tail(x))).mean((2, 3)))


class Straddle(nn.Module):
    """Two concatenations with different seams are added: no single layer sees all channels of the group."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.c, self.d = nn.Conv2d(3, 7, 1), nn.Conv2d(3, 5, 1)
        self.tail = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), self.b(x)], 1) + torch.cat([self.c(x), self.d(x)], 1)
        return self.tail(F.relu(y).mean((2, 3)))


image, sequence = (2, 3, 8, 8), (2, 5, 6)
ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, image), "mobilenet": (MobileNet, image), "dense": (Dense, image),
    "unet": (UNet, image), "shared": (Shared, image), "encoder": (Encoder, sequence),
    "shuffle": (Shuffle, image), "recurrent": (Recurrent, sequence), "keyword": (Keyword, (2, 6, 16)),
    "vgg": (VGG, image), "grouped": (Grouped, image), "straddle": (Straddle, image),
}  # fmt: skip


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network with random weights *and* random normalisation statistics, and an input for it."""
    torch.manual_seed(seed)
    factory, shape = ZOO[name]
    model = factory()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.3)
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_(std=0.2)
            m.running_var.uniform_(0.5, 1.5)
    return model.eval(), torch.randn(shape)
