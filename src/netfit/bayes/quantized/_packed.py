"""A quantized Bayesian network on disk: packed codes, one artifact, nothing else.

Codes of two widths lie side by side: means as code + (2^(bits-1) - 1), standard deviations as the number of their grid
point. Biases and everything that is not rounded stay float32.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.bayes.svi import BayesLayer, bayes_layers
from netfit.bayes.svi._layers import Rounding, inverse_softplus
from netfit.errors import ArtifactError, ConfigError
from netfit.io import read_artifact, write_artifact
from netfit.quant import Affine, Logarithmic, fake_quantize, pack_bits, unpack_bits

__all__ = ["load_packed", "memory_report", "save_packed"]

KIND = "packed bayesian network"


class Stored:
    """The affine grid of means that were read back: its scales are those of the file, whatever the means are."""

    def __init__(self, format: Affine, scale: Tensor) -> None:
        self.format, self.scale = format, scale

    def __call__(self, x: Tensor) -> Tensor:
        """Round to the file's own grid."""
        zero = torch.zeros_like(self.scale, dtype=torch.int32)
        return fake_quantize(x, self.scale, zero, self.format.qmin, self.format.qmax, self.format.axis)


def save_packed(model: nn.Module, path: str | Path) -> int:
    """Write a network whose Bayesian layers are rounded by VPQ or JQ.

    Args:
        model: from `quantize_bayes`.
        path: folder of the artifact.

    Returns:
        Bytes of all its files.

    Raises:
        ConfigError: a Bayesian layer's weights are not rounded.
        ArtifactError: it cannot be written.
    """
    layers = bayes_layers(model)
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no Bayesian layer to pack")
    tensors: dict[str, Tensor] = {}
    settings: dict[str, dict[str, Any]] = {}
    taken = set()
    for name, layer in layers.items():
        mu, sigma = _formats(name, layer)
        codes, scale = _codes(layer, mu)
        steps = sigma.codes(F.softplus(layer.weight_rho.detach()))
        tensors[f"{name}.mu"] = pack_bits((codes + mu.qmax).to(torch.uint8).flatten(), _width(mu.bits))
        tensors[f"{name}.sigma"] = pack_bits(steps.flatten(), _width(sigma.bits))
        tensors[f"{name}.scale"] = scale
        sample = layer.rounding.sample
        settings[name] = {"mu": mu.bits, "sigma": sigma.bits, "top": sigma.top, "octaves": sigma.octaves,
                          "weight": sample.bits if isinstance(sample, Affine) else 0,
                          "prior": layer.prior_std}  # fmt: skip
        taken |= {f"{name}.weight", f"{name}.weight_rho"}
    tensors |= {key: value for key, value in model.state_dict().items() if key not in taken}
    write_artifact(path, {"kind": KIND, "layers": settings}, tensors)
    return sum(file.stat().st_size for file in Path(path).iterdir())


@torch.no_grad()
def load_packed(path: str | Path, model: nn.Module) -> nn.Module:
    """Put a packed network into one of the same architecture, in place; it predicts what the saved one did, bit by bit.

    Args:
        path: folder that `save_packed` wrote.
        model: with the same Bayesian layers, whatever their weights.

    Returns:
        `model`, in evaluation mode.

    Raises:
        ArtifactError: the file is damaged, is something else, or does not fit the network.
    """
    artifact = read_artifact(path)
    settings = artifact.meta.get("layers")
    if artifact.meta.get("kind") != KIND or not isinstance(settings, dict):
        raise ArtifactError(f"{path} holds {artifact.meta.get('kind')!r}, not a {KIND}")
    layers = bayes_layers(model)
    if set(settings) != set(layers):
        raise ArtifactError(f"{path} holds layers {', '.join(settings)}; the network has {', '.join(layers) or 'none'}")
    try:
        for name, layer in layers.items():
            _unpack(layer, settings[name], *(artifact.tensors[f"{name}.{role}"] for role in ("mu", "sigma", "scale")))
        packed = {f"{name}.{role}" for name in layers for role in ("mu", "sigma", "scale")}
        rest = {key: value for key, value in artifact.tensors.items() if key not in packed}
        missing = model.load_state_dict(rest, strict=False)
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {' '.join(str(e).split())[:200]}") from e
    absent = [key for key in missing.missing_keys if not key.endswith((".weight", ".weight_rho"))]
    if absent or missing.unexpected_keys:
        raise ArtifactError(f"{path} does not fit {type(model).__name__}: {(absent + missing.unexpected_keys)[0]!r}")
    return model.eval()


def memory_report(model: nn.Module) -> list[dict[str, Any]]:
    """Bytes of every weight as it is stored packed, and as two float32 numbers.

    Returns:
        One row per Bayesian layer and one for everything else: name, numbers, bits of mean and standard deviation,
        bytes of codes, of scales, in float32, and how many times smaller the packed form is.
    """
    rows: list[dict[str, Any]] = []
    own: set[str] = set()
    for name, layer in bayes_layers(model).items():
        mu, sigma = layer.rounding.mu, layer.rounding.sigma
        n, channels = layer.weight.numel(), len(layer.weight)
        own |= {f"{name}.weight", f"{name}.weight_rho"}
        bits = [f.bits if isinstance(f, Affine | Logarithmic) else f.format.bits if isinstance(f, Stored) else 32
                for f in (mu, sigma)]  # fmt: skip
        codes = sum(-(-n * _width(b) // 8) for b in bits)
        scales = 4 * channels if mu is not None else 0
        rows.append({"name": f"{name}.weight", "numbers": n, "mu_bits": bits[0], "sigma_bits": bits[1], "codes": codes,
                     "scales": scales, "float32": 8 * n, "smaller": 8 * n / (codes + scales)})  # fmt: skip
    rest = sum(value.nbytes for key, value in model.state_dict().items() if key not in own)
    rows.append({"name": "everything else", "numbers": rest // 4, "mu_bits": 32, "sigma_bits": 32, "codes": rest,
                 "scales": 0, "float32": rest, "smaller": 1.0})  # fmt: skip
    return rows


def _formats(name: str, layer: BayesLayer) -> tuple[Affine, Logarithmic]:
    mu, sigma = layer.rounding.mu, layer.rounding.sigma
    affine = mu.format if isinstance(mu, Stored) else mu
    if not isinstance(affine, Affine) or not isinstance(sigma, Logarithmic):
        raise ConfigError(f"the weights of {name!r} are not rounded: apply QuantizeBayes with mode VPQ or JQ first")
    return affine, sigma


def _codes(layer: BayesLayer, mu: Affine) -> tuple[Tensor, Tensor]:
    """Signed codes of the means, and their scales (channels,)."""
    weight, kept = layer.weight.detach(), layer.rounding.mu
    dims = tuple(range(1, weight.dim()))
    scale = kept.scale if isinstance(kept, Stored) else mu.qparams(weight.amin(dims), weight.amax(dims))[0]
    shape = (-1,) + (1,) * (weight.dim() - 1)
    return (weight / scale.reshape(shape)).round().clamp(mu.qmin, mu.qmax), scale


def _unpack(layer: BayesLayer, settings: dict[str, Any], mu: Tensor, sigma: Tensor, scale: Tensor) -> None:
    affine = Affine(int(settings["mu"]), axis=0)
    grid = Logarithmic(int(settings["sigma"]), float(settings["top"]), float(settings["octaves"]))
    shape, n = layer.weight.shape, layer.weight.numel()
    codes = unpack_bits(mu, _width(affine.bits), n).float().reshape(shape) - affine.qmax
    layer.weight.copy_(codes * scale.reshape((-1,) + (1,) * (len(shape) - 1)))
    std = grid.grid()[unpack_bits(sigma, _width(grid.bits), n).long()].reshape(shape)
    layer.weight_rho.copy_(inverse_softplus(std.double()))
    drawn = Affine(int(settings["weight"]), axis=0) if settings["weight"] else None
    layer.rounding = Rounding(Stored(affine, scale), grid, drawn)
    layer.prior_std = float(settings["prior"])


def _width(bits: int) -> int:
    """Bits a code takes in storage: several to a byte, or a byte."""
    return next(width for width in (1, 2, 4, 8, 32) if bits <= width)
