"""Repulsive heads on Dirty-MNIST: against heads without repulsion and a small deep ensemble.

Sizes by $NETFIT_REPULSIVE_SAMPLES (training samples) and $NETFIT_REPULSIVE_SEEDS; 24 000 and 3 are the sheet's setting.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._common import record
from netfit import data, models
from netfit.bayes import metrics, predict
from netfit.bayes._uncertainty import join
from netfit.bayes.repulsive import PatchShuffle, RepulsiveHeads, UniformNoise, fit_repulsive
from netfit.train import fit

SAMPLES = int(os.environ.get("NETFIT_REPULSIVE_SAMPLES", "24000"))
SEEDS = int(os.environ.get("NETFIT_REPULSIVE_SEEDS", "3"))
EPOCHS, HEADS, TEST = 3, 10, 1000
Tensors = tuple[torch.Tensor, torch.Tensor]


def classifier(train: Tensors, seed: int) -> nn.Module:
    """A plain LeNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = models.build("lenet5")
    fit(net, train, epochs=EPOCHS, lr=2e-3, batch_size=100, weight_decay=0.0, seed=seed, optimizer="adam",
        precision="fp32")  # fmt: skip
    return net


def heads(train: Tensors, seed: int, **settings: Any) -> RepulsiveHeads:
    """Heads and trunk from scratch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RepulsiveHeads.from_classifier(models.build("lenet5"), train[0][:2], HEADS, seed=seed)
    with torch.no_grad():
        model.weight.copy_(RepulsiveHeads(nn.Identity(), model.weight.shape[2], 10, HEADS, seed=seed).weight)
    fit_repulsive(model, train, epochs=EPOCHS, seed=seed, **settings)
    return model


def tuned(train: Tensors, seed: int) -> RepulsiveHeads:
    """Heads only, on a trained network: its training is not counted."""
    net = classifier(train, seed)
    model = RepulsiveHeads.from_classifier(net, train[0][:2], HEADS, seed=seed)
    start = time.thread_time()
    fit_repulsive(model, train, epochs=1, seed=seed, beta=0.1, repulsion=UniformNoise(), freeze_trunk=True)
    model.spent = time.thread_time() - start  # type: ignore[assignment]
    return model


def found_beta(train: Tensors, seed: int) -> RepulsiveHeads:
    """Patch shuffle as strong as a tenth of the training images, held out, allows."""
    cut = len(train[0]) // 10
    part, validation = (train[0][cut:], train[1][cut:]), (train[0][:cut], train[1][:cut])
    return heads(part, seed, beta="auto", validation=validation, repulsion=PatchShuffle(7))


def parameters(model: Any) -> int:
    members = model if isinstance(model, list) else [model]
    return sum(p.numel() for member in members for p in member.parameters())


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    tests = {
        s: data.load(s, "test").subset(range(TEST)).tensors() for s in ("mnist", "ambiguous-mnist", "fashion-mnist")
    }
    ways: dict[str, Callable[[Tensors, int], Any]] = {
        "one network": lambda t, s: [classifier(t, s)],
        "deep ensemble of 3": lambda t, s: [classifier(t, 100 * s + i) for i in range(3)],
        "10 heads, no repulsion": lambda t, s: heads(t, s, beta=0.0),
        "10 heads, patch shuffle": lambda t, s: heads(t, s, beta=0.02, repulsion=PatchShuffle(7)),
        "10 heads, patch shuffle, beta auto": found_beta,
        "10 heads, uniform noise": lambda t, s: heads(t, s, beta=0.02, repulsion=UniformNoise()),
        "trained net, heads only": tuned,
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for seed in range(SEEDS):
        whole = data.load("dirty-mnist")
        train = whole.tensors(np.random.default_rng(seed).permutation(len(whole))[:SAMPLES])
        for name, way in ways.items():
            start = time.thread_time()
            model = way(train, seed)
            seconds = getattr(model, "spent", time.thread_time() - start)
            u = {s: predict(model, x, method="ensemble") for s, (x, _) in tests.items()}
            own = join([u["mnist"], u["ambiguous-mnist"]])
            y = torch.cat([tests["mnist"][1], tests["ambiguous-mnist"][1]])
            found[name].append({
                "acc": float((own.prediction == y).float().mean()), "ood": metrics.ood_auroc(own, u["fashion-mnist"]),
                "ambiguous": metrics.ambiguity_auroc(u["mnist"], u["ambiguous-mnist"]), "seconds": seconds,
                "parameters": parameters(model),
            })  # fmt: skip
    one = found["one network"]
    rows = []
    for name, runs in found.items():
        row: dict[str, Any] = {"way": name}
        row |= {key: float(np.mean([run[key] for run in runs])) for key in ("acc", "ood", "ambiguous")}
        for key in ("seconds", "parameters"):  # the least time: other work on the machine only adds
            row[f"{key} of one network"] = min(run[key] for run in runs) / min(run[key] for run in one)
        rows.append(row)
    record("repulsive", rows, goals=goals(rows), seeds=SEEDS, samples=SAMPLES, epochs=EPOCHS)


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the sheet asks of patch shuffle, of beta="auto" and of heads on a trained network."""
    by_name = {row["way"]: row for row in rows}
    plain, shuffle = by_name["10 heads, no repulsion"], by_name["10 heads, patch shuffle"]
    auto, tuned = by_name["10 heads, patch shuffle, beta auto"], by_name["trained net, heads only"]
    ensemble, time_ = by_name["deep ensemble of 3"], "seconds of one network"
    asked = [
        ("OOD AUROC over no repulsion", shuffle["ood"] - plain["ood"], ">=", 0.03),
        ("accuracy lost to no repulsion", plain["acc"] - shuffle["acc"], "<=", 0.003),
        ("CPU time", shuffle[time_], "<=", 1.45),
        ("parameters", shuffle["parameters of one network"], "<=", 1.15),
        ("OOD AUROC over a deep ensemble of 3", shuffle["ood"] - ensemble["ood"], ">=", 0.0),
        ("CPU time of the deep ensemble", shuffle[time_] / ensemble[time_], "<=", 0.5),
        ("accuracy lost with beta auto", plain["acc"] - auto["acc"], "<=", 0.005),
        ("CPU time of heads only", tuned[time_], "<=", 0.3),
    ]
    return [{"figure": f, "measured": m, "goal": f"{sign} {g:g}", "held": m >= g if sign == ">=" else m <= g}
            for f, m, sign, g in asked]  # fmt: skip


if __name__ == "__main__":
    main()
