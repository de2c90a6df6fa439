"""The published MLP in other libraries, on the same images: what an answer takes, and how well it tells what is odd.

Runs in the peers' environment: ``make peers``, then ``.venv-peers/bin/python -W ignore -m benchmarks.bayes_peers``.
FastBNNs, bayesian-torch and Pyro get the published posterior; laplace-torch finds its own around the published means,
with the curvature of the last layer. CPU time of the thread, the least of some turns, in one run.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._common import record
from benchmarks.bayes import SETS, network
from benchmarks.bayes_speed import best
from netfit import data
from netfit.bayes import Gaussian, Uncertainty, calibrate_pfp, metrics, predict, to_pfp, uncertainty
from netfit.bayes._uncertainty import join
from netfit.bayes.svi import bayes_layers, sampling

IMAGES, SAMPLES, CURVATURE = 1000, 100, 2000
SIZES = (784, 100, 100, 10)
# Goals of times of the peer over the native pass, batch 1 and batch 100.
GOALS = {("FastBNNs, analytic", 1): 20, ("bayesian-torch, 100 samples", 1): 4000, ("Pyro, 100 samples", 1): 15_000,
         ("laplace-torch, last layer", 1): 25, ("laplace-torch, last layer", 100): 20}  # fmt: skip
Layers = list[Any]  # netfit's Bayesian layers in order
Pass = Callable[[Tensor], Any]


def plain(layers: Layers) -> nn.Sequential:
    """The same network of torch's own layers, at the means."""
    parts: list[nn.Module] = [nn.Flatten()]
    for layer, (k, n) in zip(layers, pairwise(SIZES), strict=True):
        own = nn.Linear(k, n)
        own.weight.data.copy_(layer.weight)
        own.bias.data.copy_(layer.bias)
        parts += [own, nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


def fastbnns(layers: Layers) -> Pass:
    """Its analytic moments, without a covariance of the logits."""
    from fastbnns.bnn.base import BNN  # type: ignore[import-not-found]
    from fastbnns.bnn.types import MuVar  # type: ignore[import-not-found]
    from fastbnns.bnn.wrappers import BayesianModule  # type: ignore[import-not-found]

    bnn = BNN(nn=plain(layers)).eval()
    own = [m for m in bnn.modules() if isinstance(m, BayesianModule) and "weight_rho" in m._module_params]
    for module, layer in zip(own, layers, strict=True):
        for name in ("weight", "bias"):
            module._module_params[f"{name}_mean"].data = getattr(layer, name).data.clone()
            module._module_params[f"{name}_rho"].data = getattr(layer, f"{name}_rho").data.clone()

    def run(x: Tensor) -> Gaussian:
        out = bnn(MuVar(x, torch.zeros_like(x)))
        return Gaussian(out.mu, out.var)

    return run


def bayesian_torch(layers: Layers) -> Pass:
    """One sample of its reparameterised layers."""
    from bayesian_torch.layers import LinearReparameterization  # type: ignore[import-not-found]

    own = []
    for layer, (k, n) in zip(layers, pairwise(SIZES), strict=True):
        made = LinearReparameterization(k, n)
        for name in ("weight", "bias"):
            getattr(made, f"mu_{name}").data.copy_(getattr(layer, name))
            getattr(made, f"rho_{name}").data.copy_(getattr(layer, f"{name}_rho"))
        own.append(made.eval())

    def run(x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in own[:-1]:
            h = torch.relu(layer(h, return_kl=False))
        out: Tensor = own[-1](h, return_kl=False)
        return out

    return run


def pyro(layers: Layers, samples: int) -> Pass:
    """``Predictive`` over a hand-written mean-field guide, which is lighter than its automatic ones."""
    from pyro import sample  # type: ignore[import-not-found]
    from pyro.distributions import Normal  # type: ignore[import-not-found]
    from pyro.infer import Predictive  # type: ignore[import-not-found]

    found = [(layer.posterior(), layer.bias_posterior()) for layer in layers]

    def guide(x: Tensor) -> None:
        for i, (weight, bias) in enumerate(found):
            sample(f"w{i}", Normal(*weight).to_event(2))
            sample(f"b{i}", Normal(*bias).to_event(1))

    def model(x: Tensor) -> Tensor:
        h = x.flatten(1)
        for i, (weight, bias) in enumerate(found):
            w = sample(f"w{i}", Normal(torch.zeros_like(weight[0]), 1.0).to_event(2))
            b = sample(f"b{i}", Normal(torch.zeros_like(bias[0]), 1.0).to_event(1))
            h = h @ w.T + b
            h = torch.relu(h) if i < len(found) - 1 else h
        return h

    predictive = Predictive(model, guide=guide, num_samples=samples, return_sites=("_RETURN",))
    return lambda x: predictive(x)["_RETURN"]


def laplace(layers: Layers) -> tuple[Pass, Pass]:
    """Its answer (probabilities, by the probit approximation), and the moments of the logits behind it."""
    # It imports torchvision, which may be a build for GPUs that does not load here; none of its operators is called.
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from laplace import Laplace  # type: ignore[import-not-found]

    x, y = data.load("mnist").tensors(range(CURVATURE))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=250)
    with torch.enable_grad():
        found = Laplace(plain(layers), "classification", subset_of_weights="last_layer", hessian_structure="kron")
        found.fit(loader)
        found.optimize_prior_precision(method="marglik")

    def moments(x: Tensor) -> Gaussian:
        mean, cov = found._glm_predictive_distribution(x)
        return Gaussian(mean, cov.diagonal(dim1=1, dim2=2).contiguous(), cov)

    return lambda x: found(x, link_approx="probit"), moments


def scores(name: str, answer: Callable[[Tensor], Uncertainty], tests: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on MNIST and what the uncertainties find."""
    u = {s: answer(x) for s, (x, _) in tests.items()}
    own = join([u[SETS[0]], u[SETS[1]]])
    return {"library": name, "acc": float((u["mnist"].prediction == tests["mnist"][1]).float().mean()),
            **{f"MI, {s}": float(u[s].epistemic.mean()) for s in SETS},
            "OOD, MI": metrics.ood_auroc(own, u[SETS[2]]), "OOD, variance": metrics.ood_auroc(own, u[SETS[2]], "var"),
            "ambiguous": metrics.ambiguity_auroc(u[SETS[0]], u[SETS[1]])}  # fmt: skip


def quality(model: nn.Module, layers: Layers, found: tuple[Pass, Pass], tests: dict[str, Any]) -> list[dict[str, Any]]:
    """The same images for everyone; sampling libraries draw the same posterior, so they share one row."""
    pfp = to_pfp(model, tests["mnist"][0][:2])
    calibrate_pfp(pfp, tests["mnist"][0][:32])
    analytic, sampled, moments = fastbnns(layers), bayesian_torch(layers), found[1]
    return [
        scores("netfit, one pass", lambda x: predict(pfp, x, method="pfp"), tests),
        scores("FastBNNs, analytic", lambda x: uncertainty(analytic(x)), tests),
        scores(f"netfit, {SAMPLES} samples", lambda x: predict(model, x, n_samples=SAMPLES), tests),
        scores(f"bayesian-torch, {SAMPLES} samples",
               lambda x: uncertainty(torch.stack([sampled(x) for _ in range(SAMPLES)])), tests),
        scores("laplace-torch, last layer", lambda x: uncertainty(moments(x)), tests),
    ]  # fmt: skip


def speed(model: nn.Module, layers: Layers, found: tuple[Pass, Pass], batch: int) -> list[dict[str, Any]]:
    """CPU time of an answer at one batch size, over the native pass with and without covariance."""
    x, generator = torch.randn(batch, 1, 28, 28), torch.Generator()
    pfp, variances = (to_pfp(model, x, head_cov=cov) for cov in ("full", "diag"))  # type: ignore[arg-type]
    native, diagonal = pfp.compile("native", batch), variances.compile("native", batch)
    analytic, one, some, answer = fastbnns(layers), bayesian_torch(layers), pyro(layers, 10), found[0]

    def draw() -> Any:
        with sampling(model, generator):
            return model(x)

    took = best({
        "netfit, native": lambda: native(x), "netfit, native, variances only": lambda: diagonal(x),
        "netfit, sample": draw, "FastBNNs, analytic": lambda: analytic(x), "bayesian-torch, sample": lambda: one(x),
        "Pyro, 10 samples": lambda: some(x), "laplace-torch, last layer": lambda: answer(x),
    })  # fmt: skip
    for name in ("netfit", "bayesian-torch"):
        took[f"{name}, 100 samples"] = 100 * took.pop(f"{name}, sample")
    took["Pyro, 100 samples"] = 10 * took.pop("Pyro, 10 samples")
    rows = []
    for name, seconds in took.items():
        over = seconds / took["netfit, native"], seconds / took["netfit, native, variances only"]
        goal = GOALS.get((name, batch), "")
        rows.append({"library": name, "batch": batch, "us": 1e6 * seconds, "over native": over[0],
                     "over variances only": over[1], "goal": goal, "held": goal and over[0] >= goal})  # fmt: skip
    return rows


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    model = network("mlp")
    layers = list(bayes_layers(model).values())
    tests = {s: data.load(s, "test").subset(range(IMAGES)).tensors() for s in SETS}
    found = laplace(layers)
    record("bayes_peers", [row for batch in (1, 100) for row in speed(model, layers, found, batch)], seed=0)
    record("bayes_peers_quality", quality(model, layers, found, tests), seed=0, images=IMAGES)


if __name__ == "__main__":
    main()
