"""A network that is no toy: ResNet-20 on CIFAR-10 by variational fine-tuning, in one pass, and with repulsive heads.

The trained network is the one of the main job (``benchmarks.compress_cifar10`` leaves it in ``runs/cifar10/base``;
another folder by $NETFIT_BAYES_BASE); without one it is trained here for $NETFIT_BAYES_PRETRAIN epochs. Foreign images
are those of Tiny ImageNet, halved, and Fashion-MNIST, framed and in three equal channels. Sizes: $NETFIT_BAYES_TRAIN
images of training, $NETFIT_BAYES_IMAGES of each test set. CIFAR-10 of the data folder is JPEG-recompressed: compare
these accuracies with each other, not with published ones.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._common import record
from netfit import data, models, surgery
from netfit.bayes import (
    Bayesian,
    Uncertainty,
    calibrate_pfp,
    fit_svi,
    metrics,
    predict,
    to_bayesian,
    to_pfp,
    uncertainty,
)
from netfit.bayes.repulsive import PatchShuffle, Repulsion, RepulsiveHeads, UniformNoise, fit_repulsive
from netfit.surgery import Policy
from netfit.train import fit

BASE = Path(os.environ.get("NETFIT_BAYES_BASE", "runs/cifar10/base"))
PRETRAIN = int(os.environ.get("NETFIT_BAYES_PRETRAIN", "5"))
TRAIN = int(os.environ.get("NETFIT_BAYES_TRAIN", "4000"))
IMAGES = int(os.environ.get("NETFIT_BAYES_IMAGES", "300"))
EPOCHS, SAMPLES, SEED = 2, 30, 0
DRAWS = 100  # networks that calibration compares with
BAYES = Bayesian(prior_std=0.1, init_std=0.02)
KL_WEIGHT = 0.01  # of a sample's share: 270,000 weights against a few thousand images
Answer = Callable[[Tensor], Uncertainty]


def trained() -> nn.Module:
    """The network that everything starts from."""
    if BASE.is_dir():
        return surgery.open_model(str(BASE))[0].eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = models.build("resnet20")
    fit(net, data.load("cifar10").tensors(), epochs=PRETRAIN, lr=0.2, batch_size=128, weight_decay=5e-4, seed=SEED,
        augment="crop-flip")  # fmt: skip
    return net


def images(name: str) -> tuple[Tensor, Tensor]:
    """Test images of a set as CIFAR-10's network sees them: 32 x 32, three channels, CIFAR-10's scale."""
    own, found = data.load("cifar10", "test"), data.load(name, "test")
    found = found.subset(np.random.default_rng(SEED).permutation(len(found))[:IMAGES])
    x = torch.from_numpy(found.x / 255).float()
    x = F.avg_pool2d(x, 2) if x.shape[-1] == 64 else F.pad(x, [2] * 4) if x.shape[-1] == 28 else x
    mean, std = (torch.tensor(t).reshape(1, -1, 1, 1) for t in (own.mean, own.std))
    return (x.expand(-1, 3, -1, -1) - mean) / std, torch.from_numpy(found.y)


def heads(net: nn.Module, train: tuple[Tensor, Tensor], beta: float, repulsion: Repulsion) -> RepulsiveHeads:
    """Ten heads on the trained trunk, trained for an epoch, the trunk left as it is."""
    model = RepulsiveHeads.from_classifier(net, train[0][:2], 10, seed=SEED)
    fit_repulsive(model, train, epochs=1, seed=SEED, beta=beta, repulsion=repulsion, n_repulsive=32, freeze_trunk=True)
    return model


def answers(net: nn.Module, train: tuple[Tensor, Tensor], facts: dict[str, Any]) -> dict[str, Answer]:
    """Everything that says how sure it is; `facts` gets what making it took and what calibration found."""

    def made(name: str, make: Callable[[], Any]) -> Any:
        start = time.thread_time()
        result = make()
        facts["seconds"][name] = round(time.thread_time() - start, 1)
        print(name, facts["seconds"][name], flush=True)
        return result

    def fine_tuned() -> nn.Module:
        model = to_bayesian(net, train[0][:2], policy=Policy({"*": BAYES}))
        fit_svi(model, train, epochs=EPOCHS, lr=5e-4, kl_weight=KL_WEIGHT, kl_warmup=0.0, seed=SEED)
        return model.eval()

    bayesian = made("variational fine-tuning", fine_tuned)
    plain, fitted = (to_pfp(bayesian, train[0][:2], avgpool_rho=rho) for rho in (0.0, "auto"))  # type: ignore[arg-type]
    for name, network in (("rho 0", plain), ("calibrated", fitted)):
        places = made(name, lambda network=network: calibrate_pfp(network, train[0][:16], samples=DRAWS)).places
        facts[f"std ratio of the logits by rules, {name}"] = round(network.scale**-0.5, 3)
        facts[f"setting, {name}"] = next(p.setting for p in places if p.setting)
    plain.scale = 1.0  # without anything that calibration found
    found = {"plain": 0.0, "patch shuffle": 0.1, "uniform noise": 0.1}
    kinds: dict[str, Repulsion] = {
        "plain": UniformNoise(),
        "patch shuffle": PatchShuffle(8),
        "uniform noise": UniformNoise(),
    }
    ensembles = {name: made(f"heads, {name}", lambda name=name: heads(net, train, found[name], kinds[name]))
                 for name in found}  # fmt: skip
    return {
        "trained network": lambda x: _plain(net, x),
        f"variational, {SAMPLES} samples": lambda x: predict(bayesian, x, n_samples=SAMPLES),
        "one pass, pooling independent": lambda x: predict(plain, x, method="pfp"),
        "one pass, pooling calibrated": lambda x: predict(fitted, x, method="pfp"),
        "10 heads, no repulsion": lambda x: predict(ensembles["plain"], x, method="ensemble"),
        "10 heads, patch shuffle": lambda x: predict(ensembles["patch shuffle"], x, method="ensemble"),
        "10 heads, uniform noise": lambda x: predict(ensembles["uniform noise"], x, method="ensemble"),
    }


@torch.no_grad()
def _plain(net: nn.Module, x: Tensor) -> Uncertainty:
    return uncertainty(torch.cat([net(part) for part in x.split(250)]))


def main() -> None:
    """Train, score, print and keep."""
    torch.set_num_threads(1)
    whole = data.load("cifar10")
    train = whole.tensors(np.random.default_rng(SEED).permutation(len(whole))[:TRAIN])
    sets = {name: images(name) for name in ("cifar10", "tiny-imagenet20", "fashion-mnist")}
    facts: dict[str, Any] = {"seconds": {}}
    rows = []
    for name, answer in answers(trained(), train, facts).items():
        start = time.thread_time()
        u = {s: answer(x) for s, (x, _) in sets.items()}
        milliseconds = 1e3 * (time.thread_time() - start) / (len(sets) * IMAGES)
        scores = metrics.evaluate(u["cifar10"], sets["cifar10"][1])
        row: dict[str, Any] = {"way": name} | {k: scores[k] for k in ("acc", "nll", "ece15", "auroc_error")}
        for foreign in ("tiny-imagenet20", "fashion-mnist"):
            for score in ("total", "epistemic"):
                row[f"{foreign}, {score}"] = metrics.ood_auroc(u["cifar10"], u[foreign], score)  # type: ignore[arg-type]
        rows.append(row | {"MI here": float(u["cifar10"].epistemic.mean()), "ms an image": milliseconds})
    record("bayes_resnet", rows, train=TRAIN, images=IMAGES, epochs=EPOCHS, seed=SEED,
           base="of the main job" if BASE.is_dir() else f"{PRETRAIN} epochs", **facts)  # fmt: skip


if __name__ == "__main__":
    main()
