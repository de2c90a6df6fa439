"""What every stage of a pipeline costs: seconds for each kind of operation, bytes kept and bytes passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ConfigError

if TYPE_CHECKING:
    from netfit.targets import CostTable, Target
    from netfit.workload import Workload

__all__ = ["FloatArray", "StageCosts"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StageCosts:
    """Costs of one microbatch on every stage.

    Args:
        t_f: seconds of a forward, ``(stages,)``.
        t_b: seconds of the gradient of the input.
        t_w: seconds of the gradient of the weights.
        activation_bytes: kept from a forward until its backward.
        weight_bytes: weights of the stage; gradient and optimizer state are added to them.
        grad_bytes: gradients, kept all the time.
        optimizer_bytes: state of the optimizer.
        boundary_bytes: passed from stage s to s+1, and the same back, ``(stages - 1,)`` (``(stages,)``: last unused).
        free_at_b: share of the activations that a split backward frees after ``B``; the rest goes after ``W``.
        overlap: duration of a paired forward and backward as a share of their sum.
        note: how the numbers came about.

    Every array may be given as one number for all stages.

    >>> StageCosts.uniform(4, t_f=1, t_b=1, t_w=1, chunks=2).t_f.tolist()
    [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """

    t_f: FloatArray
    t_b: FloatArray
    t_w: FloatArray
    activation_bytes: FloatArray
    weight_bytes: FloatArray
    grad_bytes: FloatArray
    optimizer_bytes: FloatArray
    boundary_bytes: FloatArray
    free_at_b: float = 0.0
    overlap: float = 1.0
    note: str = ""

    def __init__(
        self,
        t_f: ArrayLike,
        t_b: ArrayLike,
        t_w: ArrayLike,
        *,
        activation_bytes: ArrayLike = 1.0,
        weight_bytes: ArrayLike = 0.0,
        grad_bytes: ArrayLike = 0.0,
        optimizer_bytes: ArrayLike = 0.0,
        boundary_bytes: ArrayLike = 0.0,
        free_at_b: float = 0.0,
        overlap: float = 1.0,
        note: str = "",
    ) -> None:
        times = np.atleast_1d(np.asarray(t_f, dtype=np.float64))
        given = {
            "t_f": times, "t_b": t_b, "t_w": t_w, "activation_bytes": activation_bytes, "weight_bytes": weight_bytes,
            "grad_bytes": grad_bytes, "optimizer_bytes": optimizer_bytes, "boundary_bytes": boundary_bytes,
        }  # fmt: skip
        put = object.__setattr__  # a frozen dataclass normalises its own fields this way
        for name, value in given.items():
            put(self, name, _column(name, value, len(times)))
        for name, share in (("free_at_b", free_at_b), ("overlap", overlap)):
            if not 0 <= share <= 1:
                raise ConfigError(f"stage costs: {name} is {share}, allowed 0 to 1")
            put(self, name, float(share))
        put(self, "note", note)
        if (times <= 0).any():
            raise ConfigError(f"stage costs: t_f is {times.min()} on stage {times.argmin()}, it must be positive")

    def __len__(self) -> int:
        return len(self.t_f)

    @property
    def t_x(self) -> FloatArray:
        """Seconds of a whole backward."""
        return self.t_b + self.t_w

    @classmethod
    def uniform(
        cls, devices: int, t_f: float = 1.0, t_b: float = 1.0, t_w: float = 1.0, *, chunks: int = 1, **more: Any
    ) -> StageCosts:
        """Equal stages; the times are those of a whole device, of which a chunk takes ``1 / chunks``.

        Activations count in microbatches of a whole device unless ``activation_bytes`` is given.

        Args:
            devices: pipeline devices.
            t_f, t_b, t_w: seconds on one device.
            chunks: stages per device.
            **more: any other argument of `StageCosts`, per stage.
        """
        if devices < 1 or chunks < 1:
            raise ConfigError(f"stage costs: {devices} devices and {chunks} chunks, both must be at least 1")
        each = np.full(devices * chunks, 1.0 / chunks)
        return cls(t_f * each, t_b * each, t_w * each, **{"activation_bytes": each} | more)

    @classmethod
    def from_target(
        cls,
        workload: Workload,
        target: Target | CostTable,
        cuts: Sequence[int] | Literal["auto"] = "auto",
        *,
        stages: int | None = None,
        kept: float = 1.0,
    ) -> StageCosts:
        """Costs of the parts of a network on a target.

        The backward follows the 1:2 rule: one forward for B and one for W where there are weights, two for B of a
        product of activations, one for B of everything else. ``note`` says so.

        Args:
            workload: traced at the size of one microbatch.
            target: any target that can cost a workload, or the table that a measured one made of the model.
            cuts: first operator of every stage but the first, or ``"auto"`` for the cut whose slowest stage is
                fastest.
            stages: how many, for ``"auto"``.
            kept: share of the activations kept until the backward, less than 1 with recomputation.

        Raises:
            ConfigError: more stages than operators, or cuts out of order.
        """
        from netfit.targets import CostTable

        from ._cuts import from_table

        table = target if isinstance(target, CostTable) else target.cost(workload)
        return from_table(workload, table, cuts, stages, kept)

    def for_stages(self, stages: int) -> StageCosts:
        """The same network in ``stages`` parts: equal to these, or each cut into equal ones.

        Raises:
            ConfigError: ``stages`` is no multiple of the stages here.
        """
        if stages == len(self):
            return self
        if stages % len(self):
            raise ConfigError(
                f"{len(self)} stages cannot be cut evenly into {stages}; give the costs of {stages} stages"
            )
        k = stages // len(self)
        columns = {f.name: np.repeat(getattr(self, f.name), k) / k for f in fields(self) if f.type == "FloatArray"}
        between = np.repeat(self.boundary_bytes, k)
        if len(self) > 1:
            between[-k:] = self.boundary_bytes[-2]  # the last stage passes nothing on, its inner parts do
        columns["boundary_bytes"] = between
        t_f, t_b, t_w = (columns.pop(name) for name in ("t_f", "t_b", "t_w"))
        more: dict[str, Any] = {"free_at_b": self.free_at_b, "overlap": self.overlap, "note": self.note}
        return StageCosts(t_f, t_b, t_w, **(columns | more))


def _column(name: str, value: ArrayLike, stages: int) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if name == "boundary_bytes" and array.shape == (stages - 1,) and stages > 1:
        array = np.append(array, 0.0)
    if array.shape not in ((), (1,), (stages,)):
        raise ConfigError(f"stage costs: {name} has shape {array.shape}, expected one number or {stages}")
    array = np.broadcast_to(array, (stages,)).astype(np.float64)
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        raise ConfigError(
            f"stage costs: {name} is {array[bad][0]} on stage {bad.argmax()}, allowed 0 to below infinity"
        )
    return array
