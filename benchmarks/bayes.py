"""The published networks in one pass against many sampled networks: accuracy, mutual information, foreign data.

Sizes by $NETFIT_BAYES_IMAGES and $NETFIT_BAYES_SAMPLES; the goals are for 1000 of
each, about twenty minutes of a core.
"""

import os
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import record
from netfit import data, models
from netfit.bayes import calibrate_pfp, load_posterior, load_pyro_guide, metrics, predict, to_bayesian, to_pfp
from netfit.bayes._uncertainty import join

IMAGES = int(os.environ.get("NETFIT_BAYES_IMAGES", "1000"))
SAMPLES = int(os.environ.get("NETFIT_BAYES_SAMPLES", "1000"))
NETS = {"mlp": "mlp", "lenet": "lenet5"}
SETS = ("mnist", "ambiguous-mnist", "fashion-mnist")


def network(name: str) -> torch.nn.Module:
    """A published posterior in netfit's network."""
    place = Path(os.environ["NETFIT_DATA"]) / f"pfp_pretrained/vi_model_20240730_e40_{name}.pt"
    model = to_bayesian(models.build(NETS[name]).eval(), torch.zeros(1, 1, 28, 28)).eval()
    return load_posterior(model, load_pyro_guide(place))


def compared(name: str) -> list[dict[str, Any]]:
    """One row a figure of one network."""
    model = network(name)
    tests = {s: data.load(s, "test") for s in SETS}
    x, y = tests["mnist"].tensors()
    pfp = to_pfp(model, x[:2])
    report = calibrate_pfp(pfp, x[:32], samples=200)
    with torch.no_grad():
        right = sum(int((pfp(a).mean.argmax(1) == b).sum()) for a, b in zip(x.split(250), y.split(250), strict=True))
    images = {s: d.subset(range(min(IMAGES, len(d)))).tensors()[0] for s, d in tests.items()}
    one = {s: predict(pfp, v, method="pfp", n_samples=1000) for s, v in images.items()}
    many = {s: predict(model, v, n_samples=SAMPLES) for s, v in images.items()}
    worst = max((p for p in report.places), key=lambda p: abs(torch.tensor(p.std_ratio).log().item()))
    rows = [row(name, "accuracy of the means", right / len(y), {"mlp": 0.973, "lenet": 0.989}[name]),
            row(name, "std ratio of the logits", report.places[-1].std_ratio, 1.0),
            row(name, f"worst std ratio ({worst.site})", worst.std_ratio, 1.0)]  # fmt: skip
    for s in SETS:
        a, b = one[s].epistemic, many[s].epistemic
        rows.append(row(name, f"mutual information, {s}", float(a.mean()), float(b.mean())))
        rows.append(row(name, f"correlation by image, {s}", float(torch.corrcoef(torch.stack([a, b]))[0, 1]), 1.0))
    for score in ("epistemic", "var"):
        found = [metrics.ood_auroc(join([u[SETS[0]], u[SETS[1]]]), u[SETS[2]], score) for u in (one, many)]
        rows.append(row(name, f"AUROC of Fashion, {score}", *found))
    found = [metrics.ambiguity_auroc(u[SETS[0]], u[SETS[1]]) for u in (one, many)]
    return [*rows, row(name, "AUROC of ambiguous, aleatoric", *found)]


def row(name: str, figure: str, one: float, many: float) -> dict[str, Any]:
    return {"network": name, "figure": figure, "one pass": one, "sampled, or wanted": many, "difference": one - many}


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    record("bayes", [r for name in NETS for r in compared(name)], seed=0, images=IMAGES, samples=SAMPLES)


if __name__ == "__main__":
    main()
