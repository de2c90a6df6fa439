"""A programmed chip: when it is read, and what is done against drift."""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.surgery import Policy, apply, sites

from .._matrix import KINDS
from ._cells import Array
from ._crossbar import Crossbar, CrossbarHook

__all__ = ["Programmed", "program"]


class Programmed:
    """Handle on the layers of a model that sit on crossbars.

    Attributes:
        model: the network on its chip.
        layers: hook of each such layer, by name.

    Args:
        model: result of `apply` with `Crossbar`.

    Raises:
        ConfigError: no layer of it is on a crossbar.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers = {m.site: m for m in model.modules() if isinstance(m, CrossbarHook)}
        if not self.layers:
            raise ConfigError(
                f"no layer of {type(model).__name__} is on a crossbar: apply a policy with crossbar first"
            )

    def at(self, t_s: float) -> Self:
        """Use the chip this long after programming, in place; compensation starts anew.

        Args:
            t_s: seconds.

        Raises:
            ConfigError: the time is negative, or nothing is known of the device at that time.
        """
        for hook in self.layers.values():
            Array(hook.crossbar.wiring, torch.zeros(1, 1), 0).read(t_s)
        for hook in self.layers.values():
            hook.t_s, hook.gain = t_s, 1.0
        return self

    def compensate(self, probe: Tensor | tuple[Tensor, ...]) -> dict[str, float]:
        """Scale each layer's results by what drift took from them on a probe: sum |y(0)| / sum |y(t)|.

        Layers are measured one after another, each on what the compensated ones before it give.

        Args:
            probe: inputs of the network; a tuple holds several arguments of one call.

        Returns:
            Factor of each layer, in use from now on.

        Raises:
            ConfigError: the probe reaches no layer.
        """
        training = self.model.training
        self.model.eval()
        for hook in self.layers.values():
            hook.gain, hook.measuring = 1.0, True
        try:
            with torch.no_grad():
                self.model(*probe if isinstance(probe, tuple) else (probe,))
        finally:
            for hook in self.layers.values():
                hook.measuring = False
            self.model.train(training)
        return {name: hook.gain for name, hook in self.layers.items()}

    def weights(self) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Name, float weight, and what its cells make of it now, for layers that hold a weight of their own."""
        modules = dict(self.model.named_modules())
        for name, hook in self.layers.items():
            w = getattr(modules.get(name), "weight", None)
            if isinstance(w, Tensor):
                yield name, w.detach(), hook.array(w.detach()).read(hook.t_s)


def program(model: nn.Module, crossbar: Crossbar, *example_inputs: Tensor) -> Programmed:
    """Put every linear layer and convolution of a model on crossbars; the given model stays as it is.

    Args:
        model: any module.
        crossbar: what they are made of.
        example_inputs: tensors the model can be run with.

    Raises:
        ConfigError: the model has no such layer, or does not run.

    Example:
        >>> net, x = nn.Sequential(nn.Linear(50, 10), nn.ReLU(), nn.Linear(10, 3)), torch.rand(64, 50)
        >>> chip = program(net, Crossbar(), x).at(86_400)
        >>> all(factor > 1 for factor in chip.compensate(x).values())
        True
    """
    kinds = sorted({s.kind for s in sites(model, *example_inputs)} & KINDS)
    if not kinds:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution to put on a crossbar")
    return Programmed(apply(model, Policy({f"kind:{kind}": crossbar for kind in kinds}), *example_inputs).eval())
