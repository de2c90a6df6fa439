"""Small Bayesian networks for the tests, with weights of a fixed seed."""

import torch
import torch.nn.functional as F
from torch import nn

from netfit.bayes import to_bayesian
from netfit.bayes.svi import bayes_layers


class Residual(nn.Module):
    """Padded and strided convolutions, batch norm, a residual addition, both kinds of pooling."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 20, 3, stride=2)
        self.fc = nn.Linear(20, 4)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        x = F.relu(x + self.conv2(x))
        x = F.relu(self.conv3(F.max_pool2d(x, 2)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def mlp(inputs=6, hidden=12, classes=3):
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def bayesian(model, x, std=0.15):
    """The network with Gaussian weights, whose standard deviations differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        new = to_bayesian(model.eval(), x).eval()
        for layer in bayes_layers(new).values():
            layer.weight_rho.data.normal_(-2.0, 0.5)
    return new


def built(make, x):
    """A Bayesian network whose first weights are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    return bayesian(model, x)


def inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
