"""The noise of a model while it lives: how strong now, from which numbers, along which schedule."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.seeding import derive
from netfit.surgery import CallHook, Policy, Site, apply, install
from netfit.surgery import sites as all_sites

from ._draw import Source
from ._noise import KINDS, Gaussian, NoiseHook
from .schedules import Schedule

__all__ = ["Injection", "sites"]


def sites(model: nn.Module, *example_inputs: Tensor) -> list[Site]:
    """Places of a model where noise can sit: inputs, layers, functional operations, residual adds; no views.

    Raises:
        ConfigError: the model does not run on these inputs.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
        >>> [s.name for s in sites(net, torch.ones(2, 4))]
        ['input', '1', '2']
    """
    return [s for s in all_sites(model, *example_inputs) if s.kind in KINDS]


class _Conductor(CallHook):
    """Sits at the input and moves the schedule on at the start of every training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule | None = None
        self.step = 0
        self.players: Sequence[NoiseHook] = ()

    def after(self, result: Any) -> Any:
        """The input as it is."""
        if self.training and self.schedule is not None:
            value = self.schedule(self.step, len(result))
            self.step += 1
            for hook in self.players:
                hook.scheduled = value
        return result


class Injection:
    """Handle on the noise that a policy put into a model.

    Args:
        model: result of `netfit.surgery.apply` with noise techniques.

    Raises:
        ConfigError: the model has no noise.

    Example:
        >>> from netfit.analog import AdditiveGaussian
        >>> net, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4)
        >>> noisy = apply(net, Policy({"*": AdditiveGaussian(0.1)}), x)
        >>> injection = Injection(noisy)
        >>> injection.set_std(0)
        >>> torch.equal(noisy(x), net(x))
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._hooks = {m.site: m for m in model.modules() if isinstance(m, NoiseHook)}
        if not self._hooks:
            raise ConfigError(f"{type(model).__name__} has no noise: apply a policy with a noise technique first")

    @classmethod
    def everywhere(cls, model: nn.Module, noise: Gaussian, *example_inputs: Tensor, at: str = "*") -> "Injection":
        """A copy of a model with this noise at every site that matches, and the handle on it.

        Args:
            model: stays as it is.
            noise: what to put there.
            example_inputs: tensors the model can be run with.
            at: pattern of site names or ``"kind:..."``.

        Raises:
            ConfigError: the pattern matches no site, or a site holds no real floating-point tensor.
        """
        return cls(apply(model, Policy({at: noise}), *example_inputs))

    @property
    def sites(self) -> tuple[tuple[str, int], ...]:
        """(name, call) of every noisy site, in the order the policy resolved them."""
        return tuple(self._hooks)

    @property
    def description(self) -> list[str]:
        """What kind of noise sits where, without its strength: part of the identity of a measurement."""
        return [str(hook) for hook in self._hooks.values()]

    @property
    def stds(self) -> dict[tuple[str, int], float | Tensor]:
        """Amplitude now, by site."""
        return {site: hook.std for site, hook in self._hooks.items()}

    def set_std(self, std: float | Tensor, at: str | tuple[str, int] = "*") -> None:
        """Change the amplitude (of mixed noise: the sum of both parts, in the same proportion).

        Args:
            std: a number, or one number a sample of the batches to come (batch,).
            at: pattern of site names, or one site as (name, call).

        Raises:
            ConfigError: the amplitude is negative or not finite, or no site matches.
        """
        values = std if isinstance(std, Tensor) else torch.tensor(float(std))
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise ConfigError(f"a standard deviation must be a finite number of at least 0, not {std}")
        for hook in self._at(at):
            hook.std = std

    def set_repeats(self, repeats: dict[tuple[str, int], int]) -> None:
        """Executions that are averaged, by site; see `multi_execution`."""
        for site, n in repeats.items():
            for hook in self._at(site):
                hook.repeats = n

    def draw_from(self, source: Source = "exact", seed: int | None = None, at: str | tuple[str, int] = "*") -> None:
        """Choose the numbers.

        Args:
            source: ``"exact"``, or ``"pool"``: slices of 2^22 numbers, several times faster; for training.
            seed: gives every site a generator of its own, so that a site's draws depend on nothing but the seed and
                its name. None takes torch's global generator, as dropout does.
            at: pattern of site names, or one site as (name, call).
        """
        for hook in self._at(at):
            hook.source = source
            hook.generator = None if seed is None else torch.Generator().manual_seed(derive(seed, "noise", *hook.site))

    def follow(self, schedule: Schedule | None, step: int = 0) -> None:
        """Set the amplitude anew at the start of every forward pass in training mode; evaluation keeps `set_std`.

        Args:
            schedule: a value or one value a sample for every step; None ends it.
            step: number of the next pass.
        """
        found = [m for m in self.model.modules() if isinstance(m, _Conductor)]
        if not found:
            found = [_Conductor().train(self.model.training)]
            install(self.model, {("input", None): found[0]})  # hooks of every call act before those of the first
        found[0].schedule, found[0].step = schedule, step
        found[0].players = list(self._hooks.values())
        for hook in found[0].players:
            hook.scheduled = None

    @contextmanager
    def only(self, site: tuple[str, int], std: float) -> Iterator[None]:
        """Noise at one site alone, for a while."""
        before = self.stds
        self.set_std(0.0)
        self.set_std(std, site)
        try:
            yield
        finally:
            for place, value in before.items():
                self._hooks[place].std = value

    def _at(self, at: str | tuple[str, int]) -> list[NoiseHook]:
        if isinstance(at, tuple):
            found = [self._hooks[at]] if at in self._hooks else []
        else:
            found = [h for (name, _), h in self._hooks.items() if fnmatchcase(name, at)]
        if not found:
            name = at[0] if isinstance(at, tuple) else at
            raise ConfigError(f"no noise at {name!r}: {did_you_mean(name, [n for n, _ in self._hooks])}")
        return found
