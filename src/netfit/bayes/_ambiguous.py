"""Digits that lie between classes, made from real ones: a stand-in for Ambiguous-MNIST that needs no download.

The recipe of Dirty-MNIST ("Deep Deterministic Uncertainty", Mukhoti et al., 2023): an auto-encoder mixes digits of
different classes, an ensemble says what each mixture could be, and those are kept on which its members agree that the
label itself is uncertain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit import models
from netfit.errors import ConfigError, JobError
from netfit.io import write_bytes
from netfit.seeding import derive
from netfit.train import fit

from ._uncertainty import uncertainty

__all__ = ["Recipe", "make_ambiguous_digits"]

_EDGES = (0.05, 0.5, 1.0, 1.6)  # nats of predictive entropy; as many images from each band
_DISAGREE = 0.05  # nats of mutual information from which the ensemble itself is unsure
_LABELS = 10  # drawn for each image


@dataclass(frozen=True)
class Recipe:
    """How many images, and how long the two kinds of networks train.

    Args:
        train, test: images to make, fewer where the bands hold fewer.
        vae_epochs: of the auto-encoder.
        lenets: members of the labelling ensemble.
        lenet_epochs: of each member.
        latent: size of the auto-encoder's code.
    """

    train: int = 6000
    test: int = 2400
    vae_epochs: int = 12
    lenets: int = 5
    lenet_epochs: int = 2
    latent: int = 16


class _VAE(nn.Module):
    """784-512-256-z and back: "Auto-Encoding Variational Bayes", 2014."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 2 * latent)
        )
        self.decode = nn.Sequential(
            nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of one class, which the training loop counts; the loss is in `_vae_loss`."""
        return self.encode(x)[:, :2]


def _vae_loss(model: nn.Module, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    vae: Any = model
    mean, log_var = vae.encode(x).chunk(2, 1)
    z = mean + (log_var / 2).exp() * torch.randn_like(mean)
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
    rebuilt = F.binary_cross_entropy_with_logits(vae.decode(z), x, reduction="none").sum(1)
    return (rebuilt + kl).mean(), mean[:, :2]


def make_ambiguous_digits(
    x: Tensor, y: Tensor, path: str | Path, *, seed: int = 0, recipe: Recipe | None = None,
    progress: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Make ambiguous digits and write them as ``netfit.data`` reads them (``ambiguous-mnist``).

    Args:
        x: digits (n, 1, 28, 28), float32 in [0, 1].
        y: their classes, int64 (n,).
        path: the ``.npz`` file to write.
        seed: of every draw.
        recipe: sizes and epochs.
        progress: called with a stage's name and its numbers.

    Returns:
        Number of images written, by split.

    Raises:
        ConfigError: the digits are not 28 x 28 or not in [0, 1].
        JobError: the ensemble finds no ambiguous image.
    """
    recipe = recipe or Recipe()
    if x.shape[1:] != (1, 28, 28) or float(x.min()) < 0 or float(x.max()) > 1:
        raise ConfigError(f"digits {tuple(x.shape)} from {x.min():g} to {x.max():g}: give (n, 1, 28, 28) in [0, 1]")
    vae = _trained_vae(x.flatten(1), y, recipe, seed, progress)
    lenets = [_trained_lenet(x, y, recipe, derive(seed, "lenet", i), progress) for i in range(recipe.lenets)]
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split, n in (("train", recipe.train), ("test", recipe.test)):
        arrays |= _images(split, n, vae, lenets, x, y, recipe, derive(seed, split))
    _write(Path(path), arrays)
    return {split: len(arrays[f"{split}_image"]) for split in ("train", "test")}


def _trained_vae(x: Tensor, y: Tensor, recipe: Recipe, seed: int, progress: Any) -> _VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "vae"))
        vae = _VAE(recipe.latent)
    fit(vae, (x, torch.zeros_like(y)), epochs=recipe.vae_epochs, lr=2e-3, batch_size=128, weight_decay=0.0, seed=seed,
        optimizer="adam", precision="fp32", objective=_vae_loss,
        progress=progress and (lambda facts: progress("auto-encoder", facts)))  # fmt: skip
    return vae


def _trained_lenet(x: Tensor, y: Tensor, recipe: Recipe, seed: int, progress: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = models.build("lenet5")
    told = progress and (lambda facts: progress("labellers", facts))
    fit(net, (_normal(x), y), epochs=recipe.lenet_epochs, lr=2e-3, batch_size=128, weight_decay=0.0, seed=seed,
        optimizer="adam", precision="fp32", progress=told)  # fmt: skip
    return net


def _normal(x: Tensor) -> Tensor:
    return (x - 0.1307) / 0.3081


@torch.no_grad()
def _images(
    split: str, n: int, vae: _VAE, lenets: list[nn.Module], x: Tensor, y: Tensor, recipe: Recipe, seed: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Images of one split: as many from each band of entropy, their probabilities and drawn labels."""
    generator = torch.Generator().manual_seed(seed)
    bands: list[list[tuple[Tensor, Tensor]]] = [[] for _ in _EDGES[1:]]
    wanted = n // len(bands)
    for _ in range(max(20, n // 100)):
        made = _mixtures(vae, x, y, recipe, generator)
        u = uncertainty(torch.stack([net(_normal(made)) for net in lenets]))
        sure = u.epistemic <= _DISAGREE
        for i, band in enumerate(bands):
            at = sure & (u.total > _EDGES[i]) & (u.total <= _EDGES[i + 1])
            band += list(zip(made[at], u.probs[at], strict=True))[: wanted - len(band)]
        if all(len(band) == wanted for band in bands):
            break
    kept = [pair for band in bands for pair in band]
    if not kept:
        raise JobError(f"no ambiguous digit among the mixtures for {split}: train the ensemble longer")
    order = torch.randperm(len(kept), generator=generator)
    images = torch.stack([kept[i][0] for i in order])
    noisy = (images + 0.05 * 0.3081 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    probability = torch.stack([kept[i][1] for i in order])
    labels = torch.multinomial(probability, _LABELS, replacement=True, generator=generator)
    return {
        f"{split}_image": (noisy[:, 0] * 255).round().to(torch.uint8).numpy(),
        f"{split}_probability": probability.numpy(),
        f"{split}_label": labels.to(torch.uint8).numpy(),
    }


def _mixtures(vae: _VAE, x: Tensor, y: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Decoded convex mixtures of 2 to 4 digits of different classes, with the brightness of real digits."""
    batch = 500
    rows = torch.randint(0, len(x), (batch, 4), generator=generator)
    count = torch.randint(2, 5, (batch, 1), generator=generator)
    share = -torch.rand(batch, 4, generator=generator).clamp_min(1e-9).log()  # Dirichlet(1, ..., 1)
    share = share * (torch.arange(4) < count)
    share = share / share.sum(1, keepdim=True)
    used = y[rows].masked_fill(torch.arange(4) >= count, -1)
    clash = ((used[:, :, None] == used[:, None, :]) & (used[:, :, None] >= 0)).sum((1, 2)) > count[:, 0]
    code = vae.encode(x[rows].flatten(0, 1).flatten(1))[:, : recipe.latent].reshape(batch, 4, -1)
    decoded = torch.sigmoid(vae.decode((code * share[:, :, None]).sum(1)))[~clash]
    level, spread = x.mean(), x.std()
    matched = (decoded - decoded.mean()) / decoded.std() * spread + level
    return (1.2 * matched - 0.15).clamp(0, 1).reshape(-1, 1, 28, 28)


def _write(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    from io import BytesIO

    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
