"""Low-bit Bayesian networks on Dirty-MNIST: bits, modes, rounding with and without training, three seeds.

Sizes by $NETFIT_QBNN_SAMPLES (training samples) and $NETFIT_QBNN_SEEDS.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._common import record
from netfit import data, models
from netfit.bayes import fit_svi, metrics, predict, to_bayesian
from netfit.bayes._uncertainty import join
from netfit.bayes.quantized import QuantizeBayes, quantize_bayes, save_packed
from netfit.surgery import Policy

SAMPLES = int(os.environ.get("NETFIT_QBNN_SAMPLES", "20000"))
SEEDS = int(os.environ.get("NETFIT_QBNN_SEEDS", "3"))
EPOCHS, MORE = 8, 3
TEST = 1000
WIDTHS = (8, 6, 4, 3, 2)
MODES = ("VPQ", "SPQ", "JQ")
FITTING: dict[str, Any] = {"batch_size": 100, "kl_weight": 0.1}


def scores(model: torch.nn.Module, tests: dict[str, Any]) -> dict[str, float]:
    """Accuracy on clear and ambiguous digits together, and both separations."""
    u = {name: predict(model, x, n_samples=50) for name, (x, _) in tests.items()}
    own = join([u["mnist"], u["ambiguous-mnist"]])
    y = torch.cat([tests["mnist"][1], tests["ambiguous-mnist"][1]])
    return {"acc": float((own.prediction == y).float().mean()), "ood": metrics.ood_auroc(own, u["fashion-mnist"]),
            "ambiguous": metrics.ambiguity_auroc(u["mnist"], u["ambiguous-mnist"])}  # fmt: skip


def one_seed(seed: int, tests: dict[str, Any]) -> tuple[dict[str, dict[str, float]], int]:
    """Scores of every variant, and the bytes of the packed 4-bit network."""
    train_set = data.load("dirty-mnist")
    rows = np.random.default_rng(seed).permutation(len(train_set))[:SAMPLES]
    train = train_set.tensors(rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = to_bayesian(models.build("mlp").eval(), train[0][:2])
    fit_svi(model, train, epochs=EPOCHS, seed=seed, **FITTING)
    found = {"fp32": scores(model, tests)}
    # The same training goes on without rounding: what more epochs alone bring.
    fit_svi(longer := quantize_bayes(model, train[0][:2], policy=Policy({})), train, epochs=MORE, lr=1e-3,
            kl_warmup=0.0, seed=seed, **FITTING)  # fmt: skip
    found["fp32, more epochs"] = scores(longer, tests)
    size = 0
    for mode in MODES:
        for bits in WIDTHS:
            small = quantize_bayes(model, train[0][:2], policy=Policy({"*": QuantizeBayes(mode, bits, bits, bits)}))
            found[f"{mode} {bits} bits, rounded"] = scores(small, tests)
            fit_svi(small, train, epochs=MORE, lr=1e-3, kl_warmup=0.0, seed=seed, **FITTING)
            found[f"{mode} {bits} bits, trained"] = scores(small, tests)
            if (mode, bits) == ("JQ", 4):
                with tempfile.TemporaryDirectory() as folder:
                    size = save_packed(small, Path(folder) / "net")
    return found, size


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    tests = {
        s: data.load(s, "test").subset(range(TEST)).tensors() for s in ("mnist", "ambiguous-mnist", "fashion-mnist")
    }
    runs = [one_seed(seed, tests) for seed in range(SEEDS)]
    rows = []
    for name in runs[0][0]:
        row: dict[str, Any] = {"network": name}
        for key in ("acc", "ood", "ambiguous"):
            row[key] = float(np.mean([found[name][key] for found, _ in runs]))
        row["accuracy lost, points"] = 100 * (float(np.mean([f["fp32"]["acc"] for f, _ in runs])) - row["acc"])
        rows.append(row)
    record("qbnn", rows, goals=goals(rows, runs[0][1]), seeds=SEEDS, samples=SAMPLES, epochs=(EPOCHS, MORE),
           packed_bytes=runs[0][1])  # fmt: skip


def goals(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """What JQ at 4 bits must keep of float32, with and without its further epochs, and the bytes it may take."""
    by_name = {row["network"]: row for row in rows}
    four, found = by_name["JQ 4 bits, trained"], []
    for base in ("fp32", "fp32, more epochs"):
        for key, allowed in (("acc", 0.005), ("ood", 0.01), ("ambiguous", 0.01)):
            lost = by_name[base][key] - four[key]
            found.append({"figure": f"JQ 4 bits: {key} lost against {base}", "measured": lost, "goal": allowed,
                          "held": lost <= allowed})  # fmt: skip
    return [*found, {"figure": "packed bytes", "measured": size, "goal": 95_600, "held": size <= 95_600}]


if __name__ == "__main__":
    main()
