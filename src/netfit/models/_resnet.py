"""Residual networks for small images: "Deep Residual Learning for Image Recognition", 2015, section 4.2.

Activations are functional and the residual join is a plain ``+``: both are addressable call sites of the
block. Shortcuts that change shape are 1x1 convolutions (option B), so every join couples whole channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 projection where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stem of one 3x3 convolution, stages of basic blocks, global average pooling, one linear layer.

    Args:
        widths: channels of each stage; every stage but the first halves the image.
        blocks: basic blocks in a stage.
        num_classes: outputs.
        channels_in: channels of the image.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int, num_classes: int, channels_in: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        width_before = (widths[0], *widths)
        self.stages = len(widths)
        for i, width in enumerate(widths):
            first = BasicBlock(width_before[i], width, stride=1 if i == 0 else 2)
            rest = [BasicBlock(width, width, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc(x)


def _kaiming(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def resnet20(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-20 for 32x32 images: 16-32-64 channels, three blocks a stage, 0.27 M parameters."""
    return _kaiming(ResNet((16, 32, 64), 3, num_classes, in_shape[0]))


def resnet18(num_classes: int, in_shape: tuple[int, ...]) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no max-pooling, the customary form for 32x32 images: 11 M parameters."""
    return _kaiming(ResNet((64, 128, 256, 512), 2, num_classes, in_shape[0]))
