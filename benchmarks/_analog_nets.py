"""The networks and data of the analog study, at the sizes one core can train in minutes."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.analog import Trainer
from netfit.data import load

Pair = tuple[Tensor, Tensor]


def perceptron(inputs: int = 784, width: int = 64, depth: int = 3, bn: bool = False) -> nn.Module:
    """``depth`` hidden layers (TFC of "Walking Noise" with 3 of 64), optionally with BatchNorm."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), *([nn.BatchNorm1d(width)] if bn else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class LeNet5(nn.Module):
    """LeNet-5 without padding, functional ReLU and pooling, with or without BatchNorm behind each layer."""

    def __init__(self, bn: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)
        self.bn1, self.bn2 = (nn.BatchNorm2d(6), nn.BatchNorm2d(16)) if bn else (nn.Identity(), nn.Identity())
        self.bn3, self.bn4 = (nn.BatchNorm1d(120), nn.BatchNorm1d(84)) if bn else (nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 28, 28) -> (batch, 10)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.fc1(x.flatten(1))))
        return self.fc3(F.relu(self.bn4(self.fc2(x))))


def images(name: str, train: int, test: int) -> tuple[Pair, Pair]:
    """The first samples of a fixed shuffle of both splits."""
    found = []
    for split, n in (("train", train), ("test", test)):
        samples = load(name, split)
        found.append(samples.tensors(np.random.default_rng(0).permutation(len(samples))[:n]))
    return found[0], found[1]


def trainer(train: Pair, epochs: int, **net: int | bool) -> Trainer:
    """Of a perceptron for these inputs, by the recipe of the papers: Adam at 1e-3, batches of 128."""
    return Trainer(partial(perceptron, inputs=train[0][0].numel(), **net), train, epochs=epochs)


def lenet(train: Pair, epochs: int, bn: bool) -> Trainer:
    """Of LeNet-5 by the same recipe."""
    return Trainer(partial(LeNet5, bn), train, epochs=epochs)


def one_thread() -> None:
    """Ratios on a busy machine hold for one thread only."""
    torch.set_num_threads(1)
