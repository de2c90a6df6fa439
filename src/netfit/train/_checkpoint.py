"""A fit's state between two epochs on disk: model, optimizer and the record so far.

Random state is not kept: every epoch derives its generators from (seed, epoch), so the epoch number is enough.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ArtifactError, ConfigError
from netfit.io import Artifact, read_artifact, write_artifact

KIND = "fit checkpoint"
STATE = {"momentum": "momentum_buffer", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "step"}


def save_checkpoint(
    path: Path,
    arguments: Mapping[str, Any],
    records: list[dict[str, Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state after ``len(records)`` epochs; a killed write leaves the previous one."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimizer)):
        for stem, name in STATE.items():
            if (value := optimizer.state[parameter].get(name)) is not None:
                tensors[f"{stem}/{i}"] = value
    write_artifact(path, {"kind": KIND, "arguments": dict(arguments), "records": records}, tensors)


def read_checkpoint(path: Path, arguments: Mapping[str, Any]) -> Artifact | None:
    """The saved state, or None when nothing was saved yet.

    Raises:
        ArtifactError: the checkpoint is damaged or something else.
        ConfigError: it was made with other arguments.
    """
    if not path.exists():
        return None
    saved = read_artifact(path)
    if saved.meta.get("kind") != KIND:
        raise ArtifactError(f"{path} is not a fit checkpoint; give another path")
    old = saved.meta["arguments"]
    for name in sorted(old.keys() | arguments.keys()):
        if old.get(name) != arguments.get(name):
            raise ConfigError(
                f"checkpoint {path} was made with {name}={old.get(name)!r}, now {arguments.get(name)!r}; "
                "use the old value or another checkpoint path"
            )
    return saved


def load_checkpoint(saved: Artifact, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved state into model and optimizer.

    Raises:
        ConfigError: it is of another model.
    """
    weights = {k.removeprefix("model/"): v for k, v in saved.tensors.items() if k.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as e:  # torch lists the mismatches below a heading; the first one is enough to know
        first = (str(e).splitlines()[1:] or [str(e)])[0].strip()
        raise ConfigError(f"checkpoint {saved.path} belongs to another model: {first}") from e
    for i, parameter in enumerate(_parameters(optimizer)):
        for stem, name in STATE.items():
            value = saved.tensors.get(f"{stem}/{i}")
            if value is not None:  # in the parameter's own memory layout
                like = parameter if value.shape == parameter.shape else value
                optimizer.state[parameter][name] = torch.empty_like(like).copy_(value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
