"""A tuned kernel inside a probabilistic forward pass: the widest layer of a Bayesian network runs generated code."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from netfit import data, models
from netfit.bayes import Gaussian, fit_svi, to_bayesian, to_pfp
from netfit.compile import ops, tune


def main(attempts: int = 4, epochs: int = 3, batch: int = 16, wide: str = "fc1") -> dict[str, Any]:
    """Train, rewrite, tune one layer, put it in; returns its configuration and how far the moments moved."""
    train, (x, y) = data.load("digits").tensors(), data.load("digits", "test").tensors()
    torch.manual_seed(0)
    net = to_bayesian(models.build("mlp", in_shape=(1, 8, 8)).eval(), train[0][:2])
    fit_svi(net, train, epochs=epochs, lr=1e-2, kl_weight=0.1, seed=0)
    one_pass = to_pfp(net, x[:2])
    plain = one_pass(x[:batch])

    step = next(s for s in one_pass.program.steps if s.site == wide)
    weight, bias = (one_pass.weights()[ref.name] for ref in step.args[1:])
    rows, columns = weight.mean.shape
    op = ops.PfpDense.of(batch, columns, rows)
    with tempfile.TemporaryDirectory() as folder:
        study = tune.Study(Path(folder) / "records.jsonl", tune.make("random", op.space()), tune.LocalRunner(op))
        best = study.run(attempts)
    second = weight.mean.square() + weight.var
    kernel = ops.Kernel(op, best.config).pack(torch.stack([weight.mean, second]), torch.stack([bias.mean, bias.var]))

    def tuned(x: Gaussian, *_: Any) -> Gaussian:
        square = x.mean.square() if x.var is None else x.mean.square() + x.var
        mean, second = kernel(torch.stack([x.mean, square]))
        return Gaussian(mean, (second - mean.square()).clamp_min(0))

    step.rule = tuned
    with torch.no_grad():
        found = one_pass(x[:batch])
    result = {
        "op": op.name, "config": best.config, "us": 1e6 * (best.outcome.seconds or 0),
        "mean": float((found.mean - plain.mean).abs().max()), "var": float((found.var / plain.var - 1).abs().max()),
        "accuracy": float((found.mean.argmax(1) == y[:batch]).float().mean()),
    }  # fmt: skip
    print("{op} as {config}: {us:.1f} us, means within {mean:.1e}, variances within {var:.1e}".format(**result))
    return result


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--attempts", type=int, default=4)
    options.add_argument("--epochs", type=int, default=3)
    main(**vars(options.parse_args()))
