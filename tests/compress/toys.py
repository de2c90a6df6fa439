"""A target without a clock and a network without a convolution: what most tests of the search need."""

import numpy as np
import torch
from torch import nn

from netfit.surgery import Quantization, plain
from netfit.targets import CostTable, DeviceSpec, Target
from netfit.workload import trace

USER_NET = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.a = nn.Conv2d(1, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = F.relu(self.bn(self.b(F.relu(self.a(x)))))
        x = F.relu(self.c(x) + x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
"""


class BitOps(Target):
    """Multiply-accumulates weighted by the bits of the layer."""

    kind = "bounded"
    spec = DeviceSpec("bit operations")

    def fingerprint(self):
        return {"target": "bitops"}

    def precisions(self, kind):
        return ("fp32", "int8")

    def cost(self, workload_or_model, *example_inputs, policy=None):
        asked = Quantization.of(workload_or_model)
        bits = asked.asked() if asked else {}
        ops = list(trace(plain(workload_or_model), *example_inputs))
        time = np.array([op.macs * (0.25 if bits.get(op.name) == "int8" else 1.0) for op in ops])
        return CostTable(tuple(o.name for o in ops), tuple(o.kind for o in ops), time, source="counted")


class Small(nn.Module):
    """Three linear layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))))
