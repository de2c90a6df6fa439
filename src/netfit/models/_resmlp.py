"""ResMLP: "ResMLP: feedforward networks for image classification with data-efficient training", 2021."""

import torch
from torch import Tensor, nn

DIM, DEPTH, PATCH = 128, 6, 4


class Affine(nn.Module):
    """Learned scale and shift of each channel; takes the place of LayerNorm."""

    def __init__(self, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((dim,), scale))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha + self.beta


class ResMLPBlock(nn.Module):
    """A linear layer across patches and a two-layer MLP across channels, each residual and scaled (eq. 2, 3)."""

    def __init__(self, dim: int, patches: int) -> None:
        super().__init__()
        self.norm1 = Affine(dim)
        self.tokens = nn.Linear(patches, patches)
        self.scale1 = Affine(dim, 0.1)
        self.norm2 = Affine(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * dim, dim)
        self.scale2 = Affine(dim, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.scale2(self.fc2(self.act(self.fc1(self.norm2(x)))))


class ResMLP(nn.Module):
    """Patches of 4x4 pixels, six blocks of 128 channels, mean over patches, one linear layer."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, height, width = in_shape
        patches = (height // PATCH) * (width // PATCH)
        self.embed = nn.Conv2d(channels, DIM, PATCH, stride=PATCH)
        self.blocks = nn.Sequential(*[ResMLPBlock(DIM, patches) for _ in range(DEPTH)])
        self.norm = Affine(DIM)
        self.fc = nn.Linear(DIM, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.blocks(x)).mean(1))
