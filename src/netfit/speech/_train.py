"""Training a mask network from scenes whose parts are known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netfit.errors import ConfigError
from netfit.seeding import derive
from netfit.surgery import Policy, Quantization
from netfit.train import fit, recalibrate

from ._estimator import MaskEstimator
from ._features import FEATURES
from ._scenes import Scene
from ._stft import STFT

__all__ = ["ideal_mask", "train"]

Progress = Callable[[dict[str, Any]], None]
_RECALIBRATION = 16384  # frames


def ideal_mask(scene: Scene, stft: STFT) -> Tensor:
    """Share of the voice in the power of every bin, mean of the microphones, (F, T)."""
    speech, noise = (stft(x).abs().square().mean(0) for x in (scene.speech, scene.noise))
    return speech / (speech + noise).clamp(min=1e-12)


def train(
    scenes: Sequence[Scene],
    *,
    bits: str | Policy = "fp32",
    features: tuple[str, ...] = FEATURES,
    hidden: int = 512,
    n_fft: int = 1024,
    epochs: int = 12,
    low_epochs: int = 8,
    lr: float = 2e-3,
    any_mics: bool = True,
    seed: int = 0,
    start: MaskEstimator | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> MaskEstimator:
    """Train a mask network, first in full precision, then on at the precision asked for.

    Args:
        scenes: with all their parts, such as `Scenes` or `SceneFolder`.
        bits: of `BITS`, or a policy.
        features: of "magnitude" and "eigen".
        hidden: width of the network.
        n_fft: samples of a frame.
        epochs: in full precision.
        low_epochs: at the precision asked for.
        lr: highest learning rate; a third of it at low precision.
        any_mics: half of the scenes are heard by only some of their microphones (sometimes one), so that the network
            learns not to count on their number.
        seed: of initial weights, order and choice of microphones.
        start: a network in full precision to go on from, instead of `epochs`.
        folder: for checkpoints, from which a killed training goes on.
        progress: called a few times a second with what `netfit.train.fit` tells, and ``"part"``.

    Raises:
        ConfigError: no scenes, or a setting that cannot be used.
    """
    if not len(scenes):
        raise ConfigError("no scenes to train on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        model = MaskEstimator(n_fft, hidden, features, scenes[0].fs)
    x, y = _frames(model, scenes, any_mics, seed, progress)
    if start is not None:
        model.load_state_dict(start.state_dict())
    else:
        model.mean, model.scale = x.mean(0), 1 / (x.std(0) + 1e-3)
    x.sub_(model.mean).mul_(model.scale)
    if start is None:
        _fit(model, x, y, epochs, lr, seed, folder, "fp32", progress)
    if bits not in ("fp32", Policy()):
        drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(derive(seed, "calibration")))
        few = x[drawn[:_RECALIBRATION]]
        model = model.quantized(bits, few[:2048])
        _fit(model, x, y, low_epochs, lr / 3, seed, folder, "low", progress)
        if state := Quantization.of(model.net):
            state.freeze()
        recalibrate(model.net, few)
    return model.eval()


def _fit(
    model: MaskEstimator, x: Tensor, y: Tensor, epochs: int, lr: float, seed: int, folder: str | Path | None,
    part: str, progress: Progress | None,
) -> None:  # fmt: skip
    fit(
        model.net, (x, y), epochs=epochs, lr=lr, batch_size=256, weight_decay=1e-5, seed=derive(seed, part),
        optimizer="adam", checkpoint=Path(folder) / part if folder else None,
        progress=(lambda facts: progress({"part": part, **facts})) if progress else None,
    )  # fmt: skip


def _frames(
    model: MaskEstimator, scenes: Sequence[Scene], any_mics: bool, seed: int, progress: Progress | None
) -> tuple[Tensor, Tensor]:
    """Features and ideal masks of all frames of all scenes."""
    stft = STFT(model.n_fft, model.n_fft // 4)
    rng = np.random.default_rng(derive(seed, "microphones"))
    features, masks = [], []
    for i in range(len(scenes)):
        scene = scenes[i]
        if scene.fs != model.fs:
            raise ConfigError(f"scene {i} has {scene.fs} samples a second, the first one {model.fs}")
        chosen = list(range(len(scene.mix)))
        if any_mics and i % 2:
            chosen = sorted(rng.choice(len(chosen), rng.integers(1, len(chosen) + 1), replace=False).tolist())
        part = Scene(scene.mix[chosen], scene.speech[chosen], scene.fs, scene.facts)
        x, _ = model.standardised(stft(part.mix)[None], model.start(len(chosen)))
        features.append(x[0])
        masks.append(ideal_mask(part, stft).T)
        if progress:
            progress({"part": "features", "step": i + 1, "steps": len(scenes)})
    return torch.cat(features), torch.cat(masks)
