"""From a MODEL argument to a network, the shape of its input and where its weights came from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from netfit import models, surgery
from netfit.errors import ConfigError, did_you_mean
from netfit.io import read_artifact, read_json
from netfit.surgery import Policy, Quantization
from netfit.workload import Workload, trace

__all__ = ["Network", "open_network", "operators", "read_policy", "stored_bytes"]


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


def open_network(
    spec: str, shape: tuple[int, ...] | None = None, num_classes: int | None = None, original: str | None = None
) -> Network:
    """Build or load the network behind a MODEL argument.

    Args:
        spec: the argument.
        shape: one input without the batch; the network's own when None.
        num_classes: outputs of a network that is built here.
        original: factory of the network that a saved one was made from, when it is not built in.

    Raises:
        ConfigError: the name, the factory or the shape cannot be used.
        ArtifactError: a saved network is damaged.
    """
    if Path(spec).is_dir():
        return _saved(spec, shape, num_classes, original)
    if original is not None:
        raise ConfigError(f"--original is for saved networks, and {spec} is none")
    model = models.build(spec, num_classes=num_classes, in_shape=shape)
    wanted = shape or models.default_in_shape(spec)
    return Network(model.eval(), spec, _known(spec, wanted), num_classes, Policy())


def _saved(folder: str, shape: tuple[int, ...] | None, num_classes: int | None, original: str | None) -> Network:
    meta = read_artifact(folder).meta
    if num_classes is not None:
        raise ConfigError(f"{folder} is a saved network: its number of outputs is fixed, leave --num-classes away")
    spec, classes = str(original or meta.get("spec")), meta.get("num_classes")
    if original is None and ":" in spec:  # an artifact is data: only the user may name code to run
        raise ConfigError(f"{folder} was made from your own code: add --original {spec}, if that is still its factory")
    built = None if original is None else models.build(original, num_classes=classes, in_shape=shape)
    loaded = surgery.load(folder, model=built)
    kept = tuple(loaded.example_inputs[0].shape[1:]) if loaded.example_inputs else None
    return Network(loaded.model.eval(), spec, _known(folder, shape or kept), classes, loaded.policy)


def _known(spec: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise ConfigError(f"{spec} does not say what it takes: give --in-shape, such as --in-shape 3,32,32")
    return shape


def read_policy(text: str, model: nn.Module, x: torch.Tensor) -> Policy:
    """The policy behind a POLICY argument, for a network.

    Args:
        text: a file, ``RUN#TRIAL``, or the name of a classic method.
        model: the uncompressed network.
        x: what it can be run with.

    Raises:
        ConfigError: none of these, or no such trial.
    """
    folder, _, trial = text.rpartition("#")
    if folder and trial.isdecimal() and Path(folder).is_dir():
        place = Path(folder) / "policies.json"
        kept = read_json(place) if place.is_file() else {}
        if trial not in kept:
            raise ConfigError(f"{folder} holds no policy of trial {trial}: {did_you_mean(trial, kept)}")
        return Policy.from_dict(kept[trial], text)
    if Path(text).is_file() or Path(text).suffix:
        return Policy.load(text)
    from netfit.compress import family_policy

    return family_policy(text, model, x)


def operators(model: nn.Module, x: torch.Tensor) -> Workload:
    """The operators of a network without those that only simulate low precision."""
    return trace(surgery.plain(model), x)


def stored_bytes(model: nn.Module, workload: Workload) -> int:
    """Bytes of all parameters at the precision the policy keeps them in; shared ones count once."""
    state = Quantization.of(model)
    widths = {} if state is None else state.widths()
    return workload.stored_bytes({name: weight for name, (weight, _) in widths.items()})
