"""What can be done to one place of a network, as data: the base of every method netfit has."""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from netfit.errors import ConfigError, PolicyConflict, UnsupportedLayerError, did_you_mean
from netfit.workload import CallSites

__all__ = ["Site", "Stage", "Technique", "known_techniques", "sites", "technique"]

Mechanism = Literal["swap", "parametrization", "hook", "graph"]
_BUILT_IN = {
    "additive_gaussian": "netfit.analog:AdditiveGaussian",
    "multiplicative_gaussian": "netfit.analog:MultiplicativeGaussian",
    "mixed_gaussian": "netfit.analog:MixedGaussian",
    "constant_scale": "netfit.analog:ConstantScale",
    "quantize": "netfit.surgery:Quantize",
    "prune": "netfit.compress:Prune",
    "save_as": "netfit.memory:SaveAs",
    "saturating_mac": "netfit.analog.mac:SaturatingMAC",
    "crossbar": "netfit.analog.crossbar:Crossbar",
    "butterfly": "netfit.structured:Butterfly",
    "monarch": "netfit.structured:Monarch",
    "pixelfly": "netfit.structured:Pixelfly",
    "low_rank": "netfit.structured:LowRank",
    "bayesian": "netfit.bayes:Bayesian",
    "quantize_bayes": "netfit.bayes.quantized:QuantizeBayes",
}
_REGISTERED: dict[str, type["Technique"]] = {}


class Stage(IntEnum):
    """When a technique acts: each stage sees the network the earlier ones left."""

    STRUCTURE = 0
    PRUNE = 1
    QUANTIZE = 2
    NOISE = 3
    MEMORY = 4


@dataclass(frozen=True)
class Site:
    """One place of a network a technique can act on.

    Attributes:
        name: module path of a layer, or ``"<module path>.<kind>"`` of a functional operation, or ``"input"``.
        call: 0 for the first call of that place in a forward pass, 1 for the second ...
        kind: canonical operation, such as ``"conv2d"``.
        shape: shape of its output, batch dimension included.
    """

    name: str
    call: int
    kind: str
    shape: tuple[int, ...]

    @property
    def key(self) -> tuple[str, int]:
        """Name and call: unique in a network."""
        return self.name, self.call


@dataclass(frozen=True)
class Technique(ABC):
    """Base of the frozen dataclasses that say what to do to one place of a network.

    A subclass sets the class attributes below, declares its settings as dataclass fields with plain values, checks
    them in ``__post_init__`` (`ConfigError`), and implements `rewrite`. It is found by its name in policy files when
    it is built in, imported, or announced as an entry point in the group ``netfit.techniques``.

    Attributes:
        name: word used in policy files.
        stage: when it acts.
        mechanism: module swap, parametrization, hook at a call site, or graph rewrite.
        kinds: kinds of sites it can act on; None for all.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    mechanism: ClassVar[Mechanism]
    kinds: ClassVar[frozenset[str] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTERED[cls.name] = cls

    @classmethod
    @abstractmethod
    def rewrite(
        cls, model: nn.Module, chosen: Mapping[Site, Self], example_inputs: tuple[torch.Tensor, ...]
    ) -> nn.Module:
        """Act on `model` at all chosen sites at once and return it (or its replacement).

        Args:
            model: a copy that may be changed freely.
            chosen: what the policy says for each site of a kind in `kinds`.
            example_inputs: tensors the model can be run with.
        """

    @classmethod
    def swap_layers(
        cls, model: nn.Module, chosen: Mapping[Site, Self], layer: Callable[[Self, nn.Module], nn.Module]
    ) -> nn.Module:
        """Replace every chosen layer by `layer(technique, old)`; one used in several places in all of them.

        This is the `rewrite` of a technique that swaps modules.

        Raises:
            PolicyConflict: one layer is given two settings.
            UnsupportedLayerError: a place is no layer of its own, or has no such form.
        """
        wanted: dict[str, Self] = {}
        for site, one in chosen.items():
            if wanted.setdefault(site.name, one) != one:
                raise PolicyConflict(f"the calls of {site.name!r} share one weight: give them the same {cls.name}")
        modules = dict(model.named_modules())
        new: dict[nn.Module, nn.Module] = {}
        for name, one in wanted.items():
            old = modules.get(name)
            if old is None:
                raise UnsupportedLayerError(f"{name!r} is no layer of its own: {cls.name} replaces layers")
            try:
                new[old] = layer(one, old)
            except (ConfigError, UnsupportedLayerError) as e:
                raise UnsupportedLayerError(f"{name!r} cannot become {cls.name}: {e}") from e
        for module in list(model.modules()):
            for key, child in list(module._modules.items()):  # named_children() names a shared one once
                if child in new:
                    setattr(module, key, new[child])
        return new.get(model, model)

    def settings(self) -> dict[str, Any]:
        """Fields that differ from their defaults, as plain values for a policy file."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }


def known_techniques() -> list[str]:
    """Names a policy file may use."""
    plugins = [e.name for e in entry_points(group="netfit.techniques")]
    return sorted({*_BUILT_IN, *_REGISTERED, *plugins})


def technique(name: str) -> type[Technique]:
    """Class of a technique by its policy name.

    Raises:
        ConfigError: no technique has that name.
    """
    if name not in _REGISTERED and name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        getattr(importlib.import_module(module), attribute)
    if name not in _REGISTERED:  # entry points cost tens of milliseconds, so only for names not built in
        for entry in entry_points(group="netfit.techniques", name=name):
            entry.load()
    if name not in _REGISTERED:
        raise ConfigError(f"no technique is called {name!r}: {did_you_mean(name, known_techniques())}")
    return _REGISTERED[name]


def sites(model: nn.Module, *example_inputs: torch.Tensor) -> list[Site]:
    """List every place of a model that a policy can name, in execution order.

    The model is run once in evaluation mode; its training flag and statistics are untouched.

    Raises:
        ConfigError: the model does not run on these inputs.

    Example:
        >>> [s.name for s in sites(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4))]
        ['input', '0', '1']
    """
    found = [
        Site("input", i, "input", tuple(x.shape)) for i, x in enumerate(example_inputs) if isinstance(x, torch.Tensor)
    ]

    def record(site: Any, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        first = result[0] if isinstance(result, tuple | list) and len(result) else result
        if isinstance(first, torch.Tensor) and not site.name.startswith("netfit_hooks"):
            found.append(Site(site.name, site.call, site.kind, tuple(first.shape)))
        return result

    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), CallSites(model, record):
            model(*example_inputs)
    except Exception as e:  # the user's own forward may raise anything
        shapes = ", ".join(str(tuple(getattr(x, "shape", ()))) for x in example_inputs) or "(none)"
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        raise ConfigError(f"{type(model).__name__} does not run on inputs of shape {shapes}: {reason}") from e
    finally:
        for module, training in modes:
            module.training = training
    return found
