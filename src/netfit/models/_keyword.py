"""Keyword spotting on spectrograms: DS-CNN of "Hello edge: keyword spotting on microcontrollers", 2017."""

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, BLOCKS = 64, 4


class SeparableBlock(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with BatchNorm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class DSCNN(nn.Module):
    """The small DS-CNN: a strided stem over (bands, frames), four separable blocks of 64, average pooling."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_shape[0], WIDTH, (4, 10), stride=2, padding=(1, 4), bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.blocks = nn.Sequential(*[SeparableBlock(WIDTH) for _ in range(BLOCKS)])
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
