"""One process of a replay: ``python -m netfit.pipeline._worker FOLDER RANK``.

Every stage sleeps instead of computing, so that devices do not compete for the cores of the machine; what is real is
torch's pipeline runtime, its messages and their order.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage

from netfit import io

from ._schedule import Schedule
from ._torch import torch_runtime

__all__ = ["main"]

Record = list[Any]  # kind, stage, microbatch, start, end


class _Stage(nn.Module):
    """Passes its input on after a while; the microbatch's number travels in the data."""

    def __init__(self, number: int, seconds: dict[str, float], whole: set[int], records: list[Record]) -> None:
        super().__init__()
        self.number, self.seconds, self.whole, self.records = number, seconds, whole, records
        self.pace = 0.0  # 0 in the rehearsal
        self.anchor = nn.Parameter(torch.zeros(1))  # makes the first stage have a backward too
        self._latest: Record = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sleep the forward's time."""
        return _Sleep.apply(x + 0 * self.anchor, self)

    def busy(self, kind: str, microbatch: int) -> None:
        """Sleep and record one operation."""
        start = time.monotonic()
        name = "X" if kind == "B" and microbatch in self.whole else kind
        self._latest = [name, self.number, microbatch, start, self._slept(start, kind)]
        self.records.append(self._latest)

    def weight_gradient(self) -> Callable[[], None]:
        """What torch calls for W: right after B, or later when the table splits them."""
        record = self._latest

        def run() -> None:
            if record[0] == "X":
                record[4] = self._slept(record[4], "W")
            else:
                self.busy("W", record[2])

        return run

    def _slept(self, start: float, kind: str) -> float:
        end = start + self.pace * self.seconds[kind]
        time.sleep(max(0.0, end - time.monotonic()))
        return time.monotonic()


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, stage: _Stage) -> torch.Tensor:
        ctx.stage = stage
        ctx.microbatch = 0 if x.is_meta else round(float(x.reshape(-1)[0]))
        stage.busy("F", ctx.microbatch)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.stage.busy("B", ctx.microbatch)
        return gradients[0].clone(), None


def main(folder: Path, rank: int) -> None:
    """Rehearse a step without sleeping, then run the measured one and write its records."""
    torch.set_num_threads(1)
    job = io.read_json(folder / "job.json")
    schedule = Schedule.from_torch_csv(folder / "table.csv")
    dist.init_process_group(
        "gloo",
        init_method=(folder / "rendezvous").absolute().as_uri(),
        rank=rank,
        world_size=schedule.devices,
        timeout=timedelta(seconds=job["timeout_s"]),
    )
    records: list[Record] = []
    modules = [_stage(schedule, s, job, records) for s, d in enumerate(schedule.placement[0]) if d == rank]
    stages = [_torch_stage(module, schedule) for module in modules]
    runtime = torch_runtime(stages, schedule.microbatches, _loss, str(folder / "table.csv"))
    x = torch.arange(float(schedule.microbatches)).reshape(-1, 1)
    inputs = (x,) if any(m.number == 0 for m in modules) else ()
    target = x if any(m.number == schedule.stages - 1 for m in modules) else None
    for pace in (0.0, 1.0):
        for module in modules:
            module.pace = pace
        records.clear()
        dist.barrier()
        runtime.step(*inputs, target=target)
    io.write_json(folder / f"rank{rank}.json", records)
    dist.barrier()
    dist.destroy_process_group()


def _stage(schedule: Schedule, number: int, job: dict[str, Any], records: list[Record]) -> _Stage:
    whole = {op.microbatch for row in schedule.rows for op in row if op.stage == number and op.kind == "X"}
    return _Stage(number, {kind: job["seconds"][kind][number] for kind in "FBW"}, whole, records)


def _torch_stage(module: _Stage, schedule: Schedule) -> PipelineStage:
    # torch sends gradients only where the examples ask for them.
    first = module.number == 0
    return PipelineStage(
        module,
        module.number,
        schedule.stages,
        torch.device("cpu"),
        input_args=(torch.zeros(1, 1, requires_grad=not first),),
        output_args=torch.zeros(1, 1, requires_grad=True),
        dw_builder=module.weight_gradient,
    )


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).sum()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
