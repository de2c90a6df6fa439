"""A structured net trained under a memory budget and exported: Monarch layers, compressed activations, an ONNX file."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from netfit import data
from netfit.deploy import export, verify
from netfit.memory import TrainingStep, plan
from netfit.structured import Monarch
from netfit.surgery import Policy, apply
from netfit.train import evaluate, fit


def main(budget: float = 0.8, epochs: int = 30, batch: int = 256) -> dict[str, Any]:
    """Replace, plan, train, export; returns shares of values and peak memory, accuracy, and what the file computes."""
    train, test = data.load("digits").tensors(), data.load("digits", "test").tensors()
    torch.manual_seed(0)
    wide = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU())]
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), *wide, nn.Linear(256, 10)).eval()
    net = apply(dense, Policy({"kind:linear": Monarch()}), train[0][:batch]).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = TrainingStep(net, train[0][:batch], train[1][:batch], cross_entropy, optimizer)
    found = plan(step, budget=budget)
    handle = found.apply(net)
    fit(net, train, epochs=epochs, lr=0.1, batch_size=batch, weight_decay=1e-4, seed=0, precision="fp32")
    handle.remove()
    net.eval()
    with tempfile.TemporaryDirectory() as folder:
        file = export(net, (test[0][:4],), Path(folder) / "net.onnx", runtime="onnxruntime")
        same = verify(file, net, test[0][:64])
    result = {
        "values": sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in dense.parameters()),
        "peak": found.after.peak / found.base.peak, "accuracy": evaluate(net, *test), "agreement": same.agreement,
    }  # fmt: skip
    print(
        "{values:.2f} of the values, {peak:.2f} of the peak memory, accuracy {accuracy:.3f}; "
        "the file agrees on {agreement:.2f} of the images".format(**result)
    )
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--budget", type=float, default=0.8)
    options.add_argument("--epochs", type=int, default=30)
    main(**vars(options.parse_args()))
