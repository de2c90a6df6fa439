"""One probabilistic pass against torch's own deterministic pass and sampling, in CPU time of one run.

Random weights of the published networks' shapes: the time does not depend on their values. Other libraries:
``benchmarks.bayes_peers``.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks._common import record
from netfit import models
from netfit.bayes import to_bayesian, to_pfp, uncertainty
from netfit.bayes.svi import bayes_layers, sampling

TURNS, CALLS = 6, 6
BATCHES = (1, 100)
SAMPLES = 100  # that one pass replaces


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least CPU seconds of a call. The candidates take turns of some calls each, so that every one has warm caches."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(TURNS):
        for name, call in calls.items():
            for _ in range(CALLS):
                start = time.thread_time()
                call()
                least[name] = min(least[name], time.thread_time() - start)
    return least


def measured(name: str, batch: int) -> dict[str, float]:
    """CPU seconds of everything, for one network and batch."""
    det = models.build(name).eval()
    x = torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    model = to_bayesian(det, x).eval()
    for layer in bayes_layers(model).values():
        layer.weight_rho.data.fill_(-2.0)
    pfp, plain = to_pfp(model, x), to_pfp(model, x, head_cov="diag")
    native, diagonal, onnx = pfp.compile("native", batch), plain.compile("native", batch), pfp.compile("onnx", batch)
    generator = torch.Generator().manual_seed(0)

    def sample() -> Any:
        with sampling(model, generator):
            return model(x)

    calls: dict[str, Callable[[], object]] = {
        "deterministic": lambda: det(x), "SVI, one sample": sample, "native": lambda: native(x),
        "native, variances only": lambda: diagonal(x), "onnx": lambda: onnx(x), "eager": lambda: pfp(x),
        "native and 100 draws": lambda: uncertainty(native(x)),
    }  # fmt: skip
    return best(calls)


def wide_head() -> dict[str, float]:
    """A last layer of 128 to 3100 outputs at batch 1: variances against the deterministic layer."""
    det, x = nn.Linear(128, 3100).eval(), torch.randn(1, 128)
    run = to_pfp(to_bayesian(nn.Sequential(det), x).eval(), x, head_cov="diag").compile("native", 1)
    return best({"deterministic": lambda: det(x), "native": lambda: run(x)})


def growth() -> float:
    """LeNet's time at batch 512 over eight times that at batch 64."""
    x = torch.randn(512, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pfp = to_pfp(to_bayesian(models.build("lenet5").eval(), x[:2]).eval(), x[:2])
    few, many = pfp.compile("native", 64), pfp.compile("native", 512)
    took = best({"few": lambda: few(x[:64]), "many": lambda: many(x)})
    return took["many"] / (8 * took["few"])


def row(name: str, batch: int, what: str, seconds: float, base: float, hundred: float) -> dict[str, Any]:
    return {
        "network": name, "batch": batch, "what": what, "us": 1e6 * seconds, "of deterministic": seconds / base,
        "100 samples are times as long": hundred / seconds,
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = []
    for name in ("mlp", "lenet5"):
        for batch in BATCHES:
            found = measured(name, batch)
            base = found["deterministic"]
            hundred = SAMPLES * found["SVI, one sample"]
            for what, seconds in found.items():
                rows.append(row(name, batch, what, seconds, base, hundred))
    head = wide_head()
    rows.append(row("128 to 3100", 1, "native, variances only", head["native"], head["deterministic"], 0.0))
    record("bayes_speed", rows, seed=0, turns=TURNS, calls=CALLS, clock="thread_time, the least",
           batch_512_over_8_times_batch_64=growth())  # fmt: skip


if __name__ == "__main__":
    main()
