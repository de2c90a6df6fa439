"""A pipeline schedule is a plain table: for every device the operations it runs, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netfit.errors import ConfigError

if TYPE_CHECKING:
    from ._costs import StageCosts
    from ._formula import Formula

__all__ = ["KINDS", "Op", "Proof", "Schedule"]

KINDS = ("F", "B", "W", "X")


class Op(NamedTuple):
    """One operation of one microbatch on one stage.

    Attributes:
        kind: ``F`` forward, ``B`` gradient of the input, ``W`` gradient of the weights, ``X`` both in one.
        stage: part of the network, counted along the forward direction.
        microbatch: number within the step.
        replica: which copy of the network (Chimera and DualPipe keep two).
        paired: this forward runs together with the backward that follows it in the row.

    >>> str(Op("F", 2, 0))
    'F0@2'
    """

    kind: str
    stage: int
    microbatch: int
    replica: int = 0
    paired: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{self.microbatch}@{self.stage}" + "'" * self.replica


@dataclass(frozen=True)
class Proof:
    """What a solver proved: no schedule of this kind is faster than ``bound_s`` seconds."""

    status: str
    bound_s: float
    found_s: float

    @property
    def optimal(self) -> bool:
        """Whether the schedule found is as fast as the bound."""
        return self.status == "optimal"


@dataclass(frozen=True)
class Schedule:
    """A pipeline schedule.

    Args:
        family: how it was made, such as ``"1f1b"``; says which formula holds. ``"custom"`` for any other table.
        rows: operations of every device in the order they run.
        placement: device of every stage, per replica: ``placement[replica][stage]``.
        microbatches: how many of them make one step.
        proof: set by `optimize`.

    >>> from netfit.pipeline import make
    >>> [str(op) for op in make("gpipe", devices=2, microbatches=1).rows[0]]
    ['F0@0', 'X0@0']
    """

    family: str
    rows: tuple[tuple[Op, ...], ...]
    placement: tuple[tuple[int, ...], ...]
    microbatches: int
    proof: Proof | None = None

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.rows)

    @property
    def stages(self) -> int:
        """Number of parts the network is cut into."""
        return len(self.placement[0])

    @property
    def chunks(self) -> int:
        """Stages of one replica on each device."""
        return max(self.stages // self.devices, 1)

    @property
    def split(self) -> bool:
        """Whether any backward is split into the gradients of input and weights."""
        return any(op.kind == "W" for row in self.rows for op in row)

    @property
    def label(self) -> str:
        """Family and what distinguishes it, such as ``"hanayo-2"`` or ``"interleaved-4"``."""
        if self.family == "hanayo":
            return f"hanayo-{self.chunks // 2}"
        if self.family == "interleaved":
            return f"interleaved-{self.chunks}"
        shifted = self.family == "chimera" and self.placement[1][0] != self.devices - 1
        return "chimera-shift" if shifted else self.family

    def validate(self) -> Schedule:
        """Check that the table can run and does a whole step; returns itself.

        Raises:
            ConfigError: an operation is missing, doubled or on the wrong device, a backward precedes its forward, or
                the devices wait for each other; the message names operations and devices.
        """
        from ._validate import check

        check(self)
        return self

    def formula(self, costs: StageCosts) -> Formula | None:
        """The closed form of this family for a free network, or None when nobody knows one."""
        from ._formula import formula

        return formula(self, costs)

    def to_torch_csv(self, path: str | Path | None = None) -> str:
        """The table in the ``compute_only`` format of torch.distributed.pipelining; also written to ``path``.

        Raises:
            ConfigError: the schedule keeps two replicas, which torch cannot run.
        """
        from netfit import io

        from ._csv import to_csv

        text = to_csv(self)
        if path is not None:
            io.write_bytes(path, text.encode())
        return text

    @classmethod
    def from_torch_csv(cls, source: str | Path, family: str = "custom") -> Schedule:
        """Read a ``compute_only`` table.

        Args:
            source: a file, or the text itself (a text holds a line end or a comma).
            family: kept as the schedule's family.

        Raises:
            ConfigError: a cell is no known action, or the table is not a schedule.
        """
        from ._csv import from_csv, text_of

        return from_csv(text_of(source), family)

    @classmethod
    def from_torch(cls, name: str, devices: int, microbatches: int, stages_per_device: int | None = None) -> Schedule:
        """One of torch's own schedules as a table; no process is started.

        Args:
            name: ``GPipe``, ``1F1B``, ``Interleaved1F1B``, ``LoopedBFS``, ``InterleavedZeroBubble``,
                ``ZBVZeroBubble`` or ``DualPipeV``.
            devices: pipeline ranks.
            microbatches: per step.
            stages_per_device: torch's default when None.

        Raises:
            ConfigError: torch knows no such schedule or refuses the sizes.
            MissingExtraError: this version of torch has other internals than the ones netfit knows.
        """
        from ._torch import torch_rows

        return from_rows("custom", torch_rows(name, devices, microbatches, stages_per_device), microbatches)


def from_rows(family: str, rows: Sequence[Sequence[Op]], microbatches: int, *, check: bool = True) -> Schedule:
    """A schedule of one replica whose placement is read off the rows."""
    home: dict[int, int] = {}
    for device, row in enumerate(rows):
        for op in row:
            if home.setdefault(op.stage, device) != device:
                raise ConfigError(f"{op} runs on device {device}, but stage {op.stage} is on device {home[op.stage]}")
    if missing := sorted(set(range(max(home, default=-1) + 1)) - set(home)):
        raise ConfigError(f"no row of the table has stage {missing[0]}; stages are 0 to {max(home)}")
    if not home:
        raise ConfigError("the table holds no operation")
    placement = (tuple(home[s] for s in range(len(home))),)
    made = Schedule(family, tuple(tuple(row) for row in rows), placement, microbatches)
    return made.validate() if check else made
