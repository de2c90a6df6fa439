"""What noise does to a network, and what training under it did: accuracy, signal power, weights, self-binarization."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.surgery import CallHook, install, plain
from netfit.surgery import sites as all_sites
from netfit.train import evaluate
from netfit.workload import CallSites

from ._injection import Injection, sites
from ._levels import EVERYWHERE, Bench, Point
from ._noise import Gaussian, MultiplicativeGaussian

__all__ = ["accuracies", "binarization_gap", "binarization_index", "signal_power", "snr_db", "weight_before"]

Key = tuple[str, int]
ROUNDS = 10


def accuracies(
    model: nn.Module, noise: Gaussian, data: tuple[Tensor, Tensor], levels: Sequence[float], *, at: str = "*", seed: int
) -> list[float]:
    """Accuracy with noise of each level at all sites.

    Args:
        model: without noise of its own; rounding of its own stays.
        noise: its kind; its strength is not used.
        data: inputs and labels.
        levels: standard deviations.
        at: sites, as a pattern.
        seed: of the draws.
    """
    bench = Bench.of(model, noise, data, at)
    bench.reuse = False  # noise at the input leaves nothing to be used again
    return bench.measure([Point(EVERYWHERE, level, seed) for level in levels])


def signal_power(model: nn.Module, x: Tensor) -> dict[Key, float]:
    """Mean square of the tensor at every site, without noise.

    Args:
        model: run once in evaluation mode.
        x: a batch of real inputs.

    >>> signal_power(nn.ReLU(), torch.tensor([[-2.0, 2.0]]))
    {('input', 0): 4.0, ('', 0): 2.0}
    """
    net = plain(model).eval()
    wanted = {s.key for s in sites(net, x)}
    found = {("input", 0): x.square().mean().item()}

    def measure(site: Any, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        if (site.name, site.call) in wanted:
            found[site.name, site.call] = first.detach().square().mean().item()
        return result

    with torch.no_grad(), CallSites(net, measure):
        net(x)
    return found


def snr_db(power: float, noise: Gaussian) -> float:
    """Signal-to-noise ratio at one site in dB.

    Args:
        power: mean square of the signal; see `signal_power`.
        noise: with its standard deviations in the units of the signal.

    Raises:
        ConfigError: the noise is zero, or relative to the tensor.

    >>> from netfit.analog import AdditiveGaussian
    >>> snr_db(4.0, AdditiveGaussian(0.2)), snr_db(4.0, MultiplicativeGaussian(0.1))
    (20.0, 20.0)
    """
    hook = noise.hook(("", 0))
    std = float(hook.std)
    if hook.relative_to is not None:
        raise ConfigError("snr_db needs noise in units of the signal, not relative to it")
    variance = (std * hook.share) ** 2 + power * (std * (1 - hook.share)) ** 2
    if variance == 0 or power <= 0:
        raise ConfigError(f"no signal-to-noise ratio of power {power} and noise variance {variance}")
    return round(10 * float(torch.log10(torch.tensor(power / variance, dtype=torch.float64))), 9)


def weight_before(model: nn.Module, site: Key, *example_inputs: Tensor) -> Tensor | None:
    """Weight of the last layer that runs before (or at) a site; None in front of the first layer.

    Additive noise at the site makes it grow in training.
    """
    found = None
    for s in all_sites(plain(model), *example_inputs):
        weight = dict(model.named_parameters()).get(f"{s.name}.weight")
        if weight is not None and weight.dim() >= 2:
            found = weight.detach()
        if s.key == site:
            return found
    raise ConfigError(f"no site {site[0]!r}")


def binarization_index(x: Tensor) -> float:
    """``E[|x|]^2 / E[x^2]``: 1 when all values are +a or -a, 0.75 uniform, 0.64 Gaussian.

    >>> binarization_index(torch.tensor([2.0, -2.0, 2.0]))
    1.0
    """
    return (x.abs().mean().square() / x.square().mean()).item()


class _TwoLevels(CallHook):
    """Sign times zero or the channel's level: multiplicative noise leaves nothing of a value but that."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        size = x.abs().movedim(1, -1).flatten(0, -2) if x.dim() > 1 else x.abs()
        threshold = size.mean(0)
        for _ in range(ROUNDS):  # Lloyd's two means in one dimension, channel by channel
            above = (size > threshold).to(size.dtype)
            high = (size * above).sum(0) / above.sum(0).clamp_min(1)
            low = (size * (1 - above)).sum(0) / (1 - above).sum(0).clamp_min(1)
            threshold = (high + low) / 2
        self.threshold, self.level = threshold, high

    def after(self, result: Any) -> Any:
        """The tensor rounded to its levels."""
        x = result.movedim(1, -1)
        return (x.sign() * self.level * (x.abs() > self.threshold)).movedim(-1, 1)


def binarization_gap(model: nn.Module, site: Key, data: tuple[Tensor, Tensor], std: float, seed: int = 0) -> float:
    """Accuracy lost when the tensor at a site is rounded to its sign times zero or one level a channel, noise present.

    Small when training under strong multiplicative noise has made the network use two magnitudes only:
    self-binarization ("Walking Noise", 2022). Under such noise the sign itself is lost behind the site.

    Args:
        model: trained with multiplicative noise there; its own noise is taken off.
        site: (name, call).
        data: inputs (n, ...) and labels (n,).
        std: of the multiplicative noise behind the site.
        seed: of the noise.

    Raises:
        ConfigError: there is no such site.
    """
    x, y = data
    net = plain(model).eval()
    found = next((s for s in sites(net, x[:2]) if s.key == site), None)
    if found is None:
        raise ConfigError(f"no site {site[0]!r}; {did_you_mean(site[0], [s.name for s in sites(net, x[:2])])}")
    accuracies = []
    for binary in (False, True):
        changed = plain(net)
        if binary:
            install(changed, {site: _TwoLevels(_at(net, site, x[:1000]))})
        install(changed, {site: MultiplicativeGaussian(std).hook(site)})
        Injection(changed).draw_from("exact", seed)
        accuracies.append(evaluate(changed, x, y))
    return accuracies[0] - accuracies[1]


def _at(net: nn.Module, site: Key, x: Tensor) -> Tensor:
    """The tensor at a site."""
    seen: list[Tensor] = []

    class Look(CallHook):
        def after(self, result: Any) -> Any:
            seen.append(result)
            return result

    copy = plain(net)
    install(copy, {site: Look()})
    with torch.no_grad():
        copy(x)
    return seen[0]
