"""The only module that touches private parts of torch.distributed.pipelining (written against torch 2.13).

torch offers no public way to read its schedules or to run a table of one's own. What is used is checked by name
before use, so that another version of torch gives a message instead of a traceback.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from netfit.errors import ConfigError, MissingExtraError, did_you_mean

from ._schedule import Op

__all__ = ["TORCH_SCHEDULES", "torch_rows", "torch_runtime"]

TORCH_SCHEDULES = (
    "GPipe", "1F1B", "Interleaved1F1B", "LoopedBFS", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV",
)  # fmt: skip
_TESTED = (2, 13)
_KIND = {"F": "F", "I": "B", "W": "W", "B": "X"}
_COLLECTIVE = ("REDUCE_GRAD", "UNSHARD", "RESHARD")  # data parallelism; torch adds them again when it runs a table


def torch_rows(name: str, devices: int, microbatches: int, stages_per_device: int | None = None) -> list[list[Op]]:
    """Rows of one of torch's schedules, without the idle slots it draws.

    Raises:
        ConfigError: unknown name, or torch refuses the sizes; the message is torch's.
        MissingExtraError: torch has changed.
    """
    if name not in TORCH_SCHEDULES:
        raise ConfigError(f"torch has no schedule {name!r}; {did_you_mean(name, TORCH_SCHEDULES)}")
    ops_of = _private("torch.distributed.pipelining._schedule_visualizer", "get_schedule_ops")
    try:
        actions = ops_of(name, devices, microbatches, stages_per_device)
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as e:
        raise ConfigError(f"torch refuses {name} on {devices} devices with {microbatches} microbatches: {e}") from e
    rows = [[op for action in row if action is not None for op in _ops(action)] for row in actions]
    return [_renumbered(row) for row in rows] if name == "1F1B" else rows


def _renumbered(row: list[Op]) -> list[Op]:
    """torch 2.13 draws the forwards of 1F1B's last rank as 1 to m instead of 0 to m-1 (it runs them right)."""
    late = min(op.microbatch for op in row if op.kind == "F")
    return [op._replace(microbatch=op.microbatch - late) if op.kind == "F" else op for op in row]


def _ops(action: Any) -> list[Op]:
    if action.sub_actions is not None:
        pair = [op for part in action.sub_actions for op in _ops(part)]
        return [pair[0]._replace(paired=True), *pair[1:]]
    if action.computation_type.value in _COLLECTIVE:
        return []
    kind = _KIND.get(action.computation_type.value)
    if kind is None:
        raise ConfigError(f"torch's table holds {action}, which is no computation")
    return [Op(kind, action.stage_index, action.microbatch_index)]


def torch_runtime(stages: list[Any], microbatches: int, loss_fn: Any, csv: str) -> Any:
    """torch's executor of a ``compute_only`` table; its ``step()`` runs one training step.

    Args:
        stages: the PipelineStage objects of this process.
        microbatches: per step.
        loss_fn: of output and target.
        csv: path of the table.

    Raises:
        MissingExtraError: torch has changed.
    """
    runtime = _private("torch.distributed.pipelining.schedules", "_PipelineScheduleRuntime")
    made = runtime(stages, microbatches, loss_fn=loss_fn, scale_grads=False)
    if not hasattr(made, "_load_csv"):
        raise _changed("_PipelineScheduleRuntime._load_csv")
    made._load_csv(csv, format="compute_only")
    return made


def _private(module: str, name: str) -> Any:
    import importlib

    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise _changed(f"{module}.{name}") from e


def _changed(what: str) -> MissingExtraError:
    found = ".".join(re.findall(r"\d+", torch.__version__)[:2])
    tested = ".".join(map(str, _TESTED))
    return MissingExtraError(
        f"torch {found} has no {what}, a private part that netfit knows from torch {tested}: "
        f"pip install 'torch=={tested}.*'"
    )
