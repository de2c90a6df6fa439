"""From a MODEL argument to a network, the shape of its input and where its weights came from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from netfit import models, surgery
from netfit.errors import ConfigError
from netfit.surgery import Policy, Quantization
from netfit.workload import Workload, trace

__all__ = ["Network", "open_network", "operators", "stored_bytes"]


@dataclass(frozen=True)
class Network:
    """A network that can be run.

    Attributes:
        model: in evaluation mode.
        spec: how its original is built.
        shape: one input without the batch.
        num_classes: what the original was built with, when that is not its customary number.
        policy: what was done to it already.
    """

    model: nn.Module
    spec: str
    shape: tuple[int, ...]
    num_classes: int | None
    policy: Policy

    def inputs(self, batch: int = 1) -> torch.Tensor:
        """Noise of the input's shape; costs do not depend on the values."""
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(0))


def open_network(spec: str, shape: tuple[int, ...] | None = None, num_classes: int | None = None) -> Network:
    """Build or load the network behind a MODEL argument.

    Raises:
        ConfigError: the name, the factory or the shape cannot be used.
        ArtifactError: a saved network is damaged.
    """
    if Path(spec).is_dir():
        loaded = surgery.load(spec)
        if num_classes is not None:
            raise ConfigError(f"{spec} is a saved network: its number of outputs is fixed, leave --num-classes away")
        kept = tuple(loaded.example_inputs[0].shape[1:]) if loaded.example_inputs else None
        wanted = shape or kept or models.default_in_shape(str(loaded.meta["spec"]))
        origin = str(loaded.meta["spec"]), loaded.meta["num_classes"]
        return Network(loaded.model.eval(), origin[0], _known(spec, wanted), origin[1], loaded.policy)
    model = models.build(spec, num_classes=num_classes, in_shape=shape)
    wanted = shape or models.default_in_shape(spec)
    return Network(model.eval(), spec, _known(spec, wanted), num_classes, Policy())


def _known(spec: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise ConfigError(f"{spec} does not say what it takes: give --in-shape, such as --in-shape 3,32,32")
    return shape


def operators(model: nn.Module, x: torch.Tensor) -> Workload:
    """The operators of a network without those that only simulate low precision."""
    return trace(surgery.plain(model), x)


def stored_bytes(model: nn.Module, workload: Workload) -> int:
    """Bytes of all parameters at the precision the policy keeps them in; shared ones count once."""
    state = Quantization.of(model)
    bits = {} if state is None else {key[0]: n for key, n in state.plan.layers.items()} | dict.fromkeys(state.bf16, 16)
    found: dict[str, float] = {}
    for op in workload:
        for role, tensor in op.params.items():
            low = bits.get(op.name) if role == "weight" else None
            found.setdefault(tensor.name, tensor.bytes if low is None else tensor.numel * low / 8)
    return round(sum(found.values()))
