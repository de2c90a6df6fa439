"""A plain chain of convolutions: VGG's pattern at the size that the low-bit literature uses on CIFAR-10."""

from torch import Tensor, nn

WIDTHS = (64, 128, 256)


class VGG8(nn.Module):
    """Six 3x3 convolutions in three pooled pairs and two linear layers, all as modules.

    Half the width of the VGG-like net of "BinaryConnect: training deep neural networks with binary weights
    during propagations", 2015.
    """

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, height, width = in_shape
        for out in WIDTHS:
            for _ in range(2):
                layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = channels * (height // 8) * (width // 8)
        self.classifier = nn.Sequential(nn.Linear(flat, 512), nn.ReLU(), nn.Linear(512, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
