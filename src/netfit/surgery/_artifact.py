"""Models with their policy on disk, and models by name: what the command line calls MODEL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netfit import models
from netfit.errors import ArtifactError, ConfigError, NetfitError
from netfit.io import read_artifact, write_artifact

from ._apply import apply
from ._policy import Policy

__all__ = ["Loaded", "load", "open_model", "save"]


class Loaded:
    """A model read from an artifact.

    Attributes:
        model: the rebuilt network, in evaluation mode.
        policy: what was done to it.
        example_inputs: zeros of the shapes it was made for.
        meta: everything else the artifact says.
    """

    def __init__(
        self, model: nn.Module, policy: Policy, example_inputs: tuple[torch.Tensor, ...], meta: dict[str, Any]
    ) -> None:
        self.model, self.policy, self.example_inputs, self.meta = model, policy, example_inputs, meta


def save(
    model: nn.Module,
    path: str | Path,
    *,
    spec: str,
    example_inputs: Sequence[torch.Tensor],
    policy: Policy | None = None,
    num_classes: int | None = None,
    files: Mapping[str, bytes] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a model and the policy it was made with as one artifact.

    Args:
        model: result of `apply` (or an untouched model).
        path: folder to write.
        spec: how the original model is built: a built-in name or a factory.
        example_inputs: tensors of the shapes it takes.
        policy: what `apply` was given.
        num_classes: outputs the original was built with, when not its customary number.
        files: further members, such as ``model.onnx``.
        notes: JSON-able facts to keep beside it.

    Raises:
        ArtifactError: it cannot be written.
    """
    meta = {
        "kind": "model",
        "spec": spec,
        "num_classes": num_classes,
        "input_shapes": [list(x.shape) for x in example_inputs],
        "policy": (policy or Policy()).to_dict(),
        "notes": dict(notes or {}),
    }
    write_artifact(path, meta, model.state_dict(), files)


def load(path: str | Path, model: nn.Module | None = None) -> Loaded:
    """Read a model back: build the original, apply the policy, load the weights.

    Args:
        path: folder written by `save`.
        model: the original network, for artifacts whose network is the user's own code. An artifact is data, so
            netfit never runs a factory because a file names it.

    Raises:
        ArtifactError: the file is damaged, is no model, or its weights do not fit the network.
        ConfigError: the network is not built in and `model` was not given.
    """
    artifact = read_artifact(path)
    meta = artifact.meta
    try:
        if meta["kind"] != "model":
            raise ArtifactError(f"{path} holds {meta['kind']!r}, not a model")
        spec, num_classes = str(meta["spec"]), meta["num_classes"]
        shapes = [tuple(int(n) for n in shape) for shape in meta["input_shapes"]]
        policy = Policy.from_dict(meta["policy"], str(path))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise e if isinstance(e, NetfitError) else ArtifactError(f"{path} describes no model: {e!r}") from e
    if model is None:
        if spec not in models.names():
            raise ConfigError(f"{path} was made from {spec!r}, which is not built in: give the original network")
        model = models.build(spec, num_classes=num_classes, in_shape=shapes[0][1:])
    example_inputs = tuple(torch.zeros(shape) for shape in shapes)
    new = apply(model, policy, *example_inputs) if policy else model
    try:
        new.load_state_dict(artifact.tensors)
    except RuntimeError as e:
        detail = " ".join(str(e).split())[:300]
        raise ArtifactError(f"the weights in {path} do not fit the network {spec!r}: {detail}") from e
    return Loaded(new.eval(), policy, example_inputs, meta)


def open_model(
    spec: str, *, num_classes: int | None = None, in_shape: tuple[int, ...] | None = None
) -> tuple[nn.Module, bool]:
    """Network behind a MODEL argument, and whether it comes with trained weights.

    Args:
        spec: a built-in name, ``package.module:factory``, ``file.py:factory``, or the folder of a saved artifact.
        num_classes: outputs of a built-in network; a factory is offered it.
        in_shape: shape of one input without the batch dimension.
    """
    if Path(spec).is_dir():
        return load(spec).model, True
    return models.build(spec, num_classes=num_classes, in_shape=in_shape), False
