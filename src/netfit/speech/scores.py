"""How good a voice is: distortion, quality, intelligibility and words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from netfit.errors import MissingExtraError, require

from . import functional
from ._enhance import enhance
from ._estimator import MaskEstimator
from ._recognise import Recognizer
from ._scenes import Scene
from ._sdr import si_sdr
from ._stft import STFT
from ._train import ideal_mask

__all__ = ["compare", "evaluate", "oracle", "si_sdr", "systems"]

System = Callable[[Scene], Tensor]
METRICS = ("si_sdr", "pesq", "stoi", "wer")


def evaluate(
    estimate: Tensor, reference: Tensor, fs: int, text: str | None = None, recognizer: Recognizer | None = None
) -> dict[str, float | str]:
    """Score one voice.

    Args:
        estimate: (n,).
        reference: the same voice alone, (n,).
        fs: samples a second.
        text: what is said.
        recognizer: what listens to it.

    Returns:
        ``"si_sdr"`` in dB; ``"pesq"`` (wide band), ``"stoi"`` and ``"wer"`` where they could be had. What could not is
        text that says why.
    """
    scores: dict[str, float | str] = {"si_sdr": float(si_sdr(estimate, reference))}
    scores["pesq"], scores["stoi"] = _pesq(estimate, reference, fs), _stoi(estimate, reference, fs)
    if text is None or recognizer is None:
        scores["wer"] = "nothing to compare words with"
    else:
        scores["wer"] = recognizer.errors(estimate, text) / max(len(text.split()), 1)
    return scores


def _pesq(estimate: Tensor, reference: Tensor, fs: int) -> float | str:
    if fs != 16000:
        return f"PESQ is for 16000 samples a second, not {fs}"
    try:
        pesq: Any = require("pesq", "speech-eval")
    except MissingExtraError as e:
        return str(e)
    try:
        return float(pesq.pesq(fs, reference.numpy(), estimate.numpy(), "wb"))
    except Exception as e:  # its errors are its own; the usual one is that nobody speaks
        return f"PESQ found no speech ({type(e).__name__})"


def _stoi(estimate: Tensor, reference: Tensor, fs: int) -> float | str:
    try:
        pystoi: Any = require("pystoi", "speech-eval")
    except MissingExtraError as e:
        return str(e)
    return float(pystoi.stoi(reference.numpy(), estimate.numpy(), fs))


def oracle(scene: Scene, beamformer: str = "mvdr") -> Tensor:
    """Voice at microphone 0 by a beamformer that knows the ideal mask, (n,): the most that a mask network can reach."""
    stft = STFT()
    Y, mask = stft(scene.mix.double()), ideal_mask(scene, stft).double()
    Rs, Rn = functional.scm(Y, mask), functional.load(functional.scm(Y, 1 - mask))
    w = functional.mvdr(Rs, Rn) if beamformer == "mvdr" else functional.pan(functional.gev(Rs, Rn), Rn)
    return stft.inverse(functional.apply(w, Y), scene.mix.shape[1]).float()


def systems(models: Mapping[str, MaskEstimator]) -> dict[str, System]:
    """What a table of results compares: the noisy microphone, a rule, every network, and the ideal mask."""

    def by(**how: Any) -> System:
        return lambda scene: enhance(scene.mix, scene.fs, ref=0, **how).audio

    found: dict[str, System] = {"noisy": lambda scene: scene.mix[0], "blind mvdr": by(mask="blind")}
    for name, model in models.items():
        found[f"{name} mvdr"] = by(model=model, fft=model.n_fft, hop=model.n_fft // 4)
        found[f"{name} gev-pan"] = by(model=model, beamformer="gev", fft=model.n_fft, hop=model.n_fft // 4)
    return found | {"ideal mvdr": oracle, "ideal gev-pan": lambda scene: oracle(scene, "gev")}


@torch.no_grad()
def compare(
    scenes: Sequence[Scene], systems: Mapping[str, System], *, sentences: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Score systems on scenes; the reference is the reverberant voice at microphone 0.

    Args:
        scenes: with all their parts.
        systems: name -> what makes a voice (n,) of a scene.
        sentences: everything that may be said; given, word errors are counted where the scenes have texts.
        progress: called with scenes done and scenes in all.

    Returns:
        One row a system: means of the metrics, ``"gain"`` over the noisy microphone in dB, ``"skipped"`` for metrics
        that could not be had, and ``"each"``, the SI-SDR of every scene.
    """
    recognizer = Recognizer(sentences, scenes[0].fs) if sentences else None
    scores: dict[str, list[dict[str, float | str]]] = {name: [] for name in systems}
    weights = []
    for i in range(len(scenes)):
        scene = scenes[i]
        text = scene.facts.get("text")
        weights.append(len((text or "").split()))
        for name, system in systems.items():
            scores[name].append(evaluate(system(scene), scene.speech[0], scene.fs, text, recognizer))
        if progress:
            progress(i + 1, len(scenes))
    noisy = [float(si_sdr(scenes[i].mix[0], scenes[i].speech[0])) for i in range(len(scenes))]
    return [_row(name, found, weights, noisy) for name, found in scores.items()]


def _row(
    name: str, scores: Sequence[Mapping[str, float | str]], weights: Sequence[int], noisy: Sequence[float]
) -> dict[str, Any]:
    row: dict[str, Any] = {"system": name, "skipped": {}, "each": [score["si_sdr"] for score in scores]}
    for metric in METRICS:
        found = [(s[metric], w) for s, w in zip(scores, weights, strict=True) if not isinstance(s[metric], str)]
        if not found:
            row["skipped"][metric] = next(str(s[metric]) for s in scores)
            row[metric] = None
        elif metric == "wer":  # errors over words, not the mean of shares
            row[metric] = sum(float(v) * w for v, w in found) / max(sum(w for _, w in found), 1)
        else:
            row[metric] = sum(float(v) for v, _ in found) / len(found)
    row["gain"] = sum(row["each"]) / len(noisy) - sum(noisy) / len(noisy)
    return row
