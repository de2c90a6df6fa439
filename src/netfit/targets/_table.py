"""The cost table: a struct of numpy arrays with one row per operator."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, ConfigError, did_you_mean

FloatArray = NDArray[np.float64]

_ARRAYS = ("time_s", "lo_s", "hi_s", "energy_j", "utilization")
_GROUPS = ("bytes", "breakdown")


@dataclass(frozen=True)
class CostSummary:
    """Sums over all operators: scalars, or one value per configuration when the table has that axis."""

    time_s: FloatArray
    lo_s: FloatArray
    hi_s: FloatArray
    energy_j: FloatArray | None
    bytes: dict[str, FloatArray]


@dataclass(frozen=True, eq=False)
class CostTable:
    """What one inference costs, operator by operator, in seconds, joules and bytes.

    Every array has shape ``(ops,)`` or ``(configurations, ops)``; the second form holds a whole sweep of a
    simulated target in one table.

    Args:
        names: site of each operator, in order of execution.
        kind: operator kinds, such as ``"conv2d"``.
        time_s: seconds.
        lo_s: lower end of the interval of ``time_s``; left out by exact targets, then equal to it.
        hi_s: upper end.
        energy_j: joules, None when the target knows nothing of energy.
        bytes: moved bytes by memory level or operand.
        utilization: share of the peak in [0, 1].
        breakdown: parts of ``time_s`` in seconds, such as ``{"compute": ..., "memory": ...}``.
        source: how the numbers came about, such as ``"openvino 2026.4.1, 1 thread, measured"``.

    >>> table = CostTable(("conv", "fc"), ("conv2d", "linear"), np.array([2e-3, 1e-3]), source="by hand")
    >>> float(table.total().time_s)
    0.003
    >>> table.group("kind:linear").names
    ('fc',)
    """

    names: tuple[str, ...]
    kind: tuple[str, ...]
    time_s: FloatArray
    lo_s: FloatArray = None  # type: ignore[assignment]  # filled by __post_init__
    hi_s: FloatArray = None  # type: ignore[assignment]
    energy_j: FloatArray | None = None
    bytes: dict[str, FloatArray] = field(default_factory=dict)
    utilization: FloatArray | None = None
    breakdown: dict[str, FloatArray] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__  # the way a frozen dataclass normalises its own fields
        put(self, "names", tuple(self.names))
        put(self, "kind", tuple(self.kind))
        for name in _ARRAYS:
            value = self.time_s if name in ("lo_s", "hi_s") and getattr(self, name) is None else getattr(self, name)
            put(self, name, None if value is None else self._checked(name, value))
        for name in _GROUPS:
            put(self, name, {k: self._checked(f"{name}.{k}", v) for k, v in getattr(self, name).items()})
        if len(self.kind) != len(self.names):
            raise ConfigError(f"cost table: {len(self.names)} names but {len(self.kind)} kinds")

    def _checked(self, name: str, value: Any) -> FloatArray:
        array = np.asarray(value, dtype=np.float64)
        shape = array.shape if name == "time_s" else self.time_s.shape
        if array.shape != shape or array.ndim not in (1, 2) or array.shape[-1] != len(self.names):
            raise ConfigError(
                f"cost table: {name} has shape {array.shape}, "
                f"expected ({len(self.names)},) or (configurations, {len(self.names)}), the same for all columns"
            )
        if not np.isfinite(array).all() or (array < 0).any():
            raise ConfigError(f"cost table: {name} holds a negative, infinite or NaN value")
        return array

    def __len__(self) -> int:
        return len(self.names)

    def total(self) -> CostSummary:
        """Sum over operators.

        The ends of the interval add up too: a measured table scales one interval of the whole network down to
        its operators, so that the sum gives that interval back.
        """
        return CostSummary(
            time_s=self.time_s.sum(-1),
            lo_s=self.lo_s.sum(-1),
            hi_s=self.hi_s.sum(-1),
            energy_j=None if self.energy_j is None else self.energy_j.sum(-1),
            bytes={k: v.sum(-1) for k, v in self.bytes.items()},
        )

    def group(self, pattern: str) -> "CostTable":
        """The rows whose name matches ``pattern`` (as in a policy: ``"layer1.*"`` or ``"kind:conv2d"``).

        Raises:
            ConfigError: no row matches; the message names the nearest ones.
        """
        by_kind = pattern.startswith("kind:")
        labels, wanted = (self.kind, pattern[5:]) if by_kind else (self.names, pattern)
        rows = [i for i, label in enumerate(labels) if fnmatchcase(label, wanted)]
        if not rows:
            raise ConfigError(f"no row of the cost table matches {pattern!r}; {did_you_mean(wanted, labels)}")

        columns: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        picked: dict[str, Any] = {k: None if v is None else v[..., rows] for k, v in columns.items()}
        for name in _GROUPS:
            picked[name] = {k: v[..., rows] for k, v in getattr(self, name).items()}
        names, kinds = (tuple(column[i] for i in rows) for column in (self.names, self.kind))
        return CostTable(names, kinds, source=self.source, **picked)

    def rows(self, configuration: int | None = None) -> list[dict[str, Any]]:
        """One dictionary per operator, for printing.

        Args:
            configuration: which one, for a table that holds several.

        Raises:
            ConfigError: the table holds several configurations and none was named, or the reverse.
        """
        if (self.time_s.ndim == 2) != (configuration is not None):
            held = f"{len(self.time_s)} configurations" if self.time_s.ndim == 2 else "one configuration"
            raise ConfigError(f"rows(configuration={configuration}) of a table that holds {held}")
        at = ... if configuration is None else configuration
        columns = {name: getattr(self, name)[at] for name in _ARRAYS if getattr(self, name) is not None}
        columns |= {f"{g}.{k}": v[at] for g in _GROUPS for k, v in getattr(self, g).items()}
        return [
            {"name": name, "kind": kind, **{k: float(v[i]) for k, v in columns.items()}}
            for i, (name, kind) in enumerate(zip(self.names, self.kind, strict=True))
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON object that ``from_json`` reads back without loss."""
        out: dict[str, Any] = {"names": list(self.names), "kind": list(self.kind), "source": self.source}
        out |= {name: getattr(self, name).tolist() for name in _ARRAYS if getattr(self, name) is not None}
        return out | {g: {k: v.tolist() for k, v in getattr(self, g).items()} for g in _GROUPS}

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "CostTable":
        """Read what ``to_json`` wrote.

        Raises:
            ArtifactError: ``obj`` is not a cost table.
        """
        known = {f.name for f in fields(cls)}
        try:
            if unknown := set(obj) - known:
                raise ConfigError(f"unknown column {sorted(unknown)[0]!r}")
            return cls(**obj)
        except (TypeError, ValueError, AttributeError) as e:
            raise ArtifactError(f"not a cost table: {e}") from e
