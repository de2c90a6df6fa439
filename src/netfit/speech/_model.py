"""Mask networks on disk, small: weights of one bit take one bit."""

import functools
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netfit.errors import ArtifactError, ConfigError, NetfitError
from netfit.io import read_artifact, write_artifact
from netfit.kernels import pack_signs
from netfit.quant import Binary
from netfit.surgery import Policy, Quantization, apply

from ._estimator import MaskEstimator

__all__ = ["load_model", "save_model"]

_KIND = "speech-mask"


def save_model(model: MaskEstimator, path: str | Path, notes: dict[str, Any] | None = None) -> None:
    """Write a mask network as one artifact.

    Layers of 1-bit weights are stored as packed signs and one scale a row, 32 times smaller than float32.

    Args:
        model: trained (and, where a policy was applied, calibrated).
        path: folder to write.
        notes: JSON-able facts to keep beside it, such as what it was trained on.

    Raises:
        ArtifactError: it cannot be written.
    """
    tensors = dict(model.state_dict())
    for name in _binary_layers(model):
        weight = tensors.pop(f"net.{name}.weight")
        tensors[f"net.{name}.signs"] = pack_signs(weight)
        tensors[f"net.{name}.scale"] = weight.abs().mean(1)
    meta = {
        "kind": _KIND,
        "n_fft": model.n_fft,
        "hidden": model.hidden,
        "features": list(model.features),
        "fs": model.fs,
        "policy": model.policy.to_dict(),
        "notes": notes or {},
    }
    write_artifact(path, meta, tensors)


def load_model(path: str | Path | None = None) -> MaskEstimator:
    """Read a mask network, in evaluation mode.

    Args:
        path: folder written by `save_model`; by default the network that comes with netfit: 1-bit weights and 8-bit
            activations, 16 kHz, frames of 1024 samples. ``netfit/speech/pretrained/README.md`` says what it was trained
            on, by which command, and its licence.

    Raises:
        ArtifactError: it is damaged or holds something else.
    """
    if path is None:
        return _pretrained()
    found = read_artifact(path)
    meta, tensors = found.meta, dict(found.tensors)
    if meta.get("kind") != _KIND:
        raise ArtifactError(
            f"{path} holds {str(meta.get('kind'))[:40]!r}, not a mask network: make one with netfit speech train"
        )
    try:
        policy = Policy.from_dict(meta["policy"], str(path))
        model = MaskEstimator(int(meta["n_fft"]), int(meta["hidden"]), tuple(meta["features"]), int(meta["fs"]))
        if policy:
            model.net = apply(model.net, policy, torch.zeros(2, len(model.mean)))
        model.policy = policy
        for name in _binary_layers(model):
            tensors[f"net.{name}.weight"] = _unpacked(model, name, tensors)
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        if isinstance(e, NetfitError) and not isinstance(e, ConfigError):
            raise
        reason = " ".join(str(e).split())[:200]
        raise ArtifactError(f"{path} describes no mask network: {type(e).__name__} {reason}") from e
    model.notes = meta.get("notes", {})
    return model.eval()


@functools.cache
def _pretrained() -> MaskEstimator:
    with resources.as_file(resources.files("netfit.speech").joinpath("pretrained", "mask-w1a8")) as folder:
        return load_model(folder)


def _binary_layers(model: MaskEstimator) -> list[str]:
    """Layers whose weights are signs times one scale a row."""
    state = Quantization.of(model.net)
    if state is None:
        return []
    whole = [name for name, quantizer in state.weights.items() if isinstance(quantizer, Binary)]
    return sorted({*whole, *state.bits})


def _unpacked(model: MaskEstimator, name: str, tensors: dict[str, Tensor]) -> Tensor:
    """Signs times scale: what the layer computes with, since rounding it again gives the same."""
    words, scale = tensors.pop(f"net.{name}.signs"), tensors.pop(f"net.{name}.scale")
    shape = model.net.get_parameter(f"{name}.weight").shape
    if words.dtype != torch.int64 or words.shape != (shape[0], -(-shape[1] // 64)) or scale.shape != shape[:1]:
        raise ArtifactError(f"packed weights of {name} have shape {tuple(words.shape)}, not those of {tuple(shape)}")
    bits = (words[..., None] >> torch.arange(64) & 1).flatten(1)[:, : shape[1]]
    return (2 * bits - 1).float() * scale[:, None]
