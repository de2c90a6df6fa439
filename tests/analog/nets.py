"""Networks of the tests: small, and importable by worker processes."""

from torch import nn


def perceptron(inputs=64, widths=(32, 32), bn=False, outputs=10):
    """Fully connected, with sites 0 (input), then linear, (norm,) ReLU ... linear."""
    layers, last = [nn.Flatten()], inputs
    for width in widths:
        layers += [nn.Linear(last, width), *([nn.BatchNorm1d(width)] if bn else []), nn.ReLU()]
        last = width
    return nn.Sequential(*layers, nn.Linear(last, outputs))


class Residual(nn.Module):
    """Functional ReLU, a residual add, an in-place one, and a module that is called twice."""

    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=inplace)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.act(self.body(x) + x)
        return self.fc(x.mean((2, 3)))
