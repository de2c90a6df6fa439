"""`inventory`: who keeps these gigabytes? Every tensor autograd saves, by place, with sharing counted once."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from ._compress import CodecPolicy, Watch, read_policy
from ._kinds import LEAST, kept_as
from ._saver import Observer, kept, tensors_in
from ._step import TrainingStep, undisturbed
from .codecs import Keep, Packed, Recompute

__all__ = ["Inventory", "Saved", "inventory"]

LOSS = "(loss)"


@dataclass(frozen=True)
class Saved:
    """One tensor that one operation saved.

    Args:
        name: place of the operation; ``"(loss)"`` outside of the model.
        call: which call of that place.
        kind: of the operation.
        role: ``"input"`` (its first argument), ``"operand"`` (another one), ``"parameter"``, ``"batch"``, or
            ``"result"`` for what the operation made.
        shape: of the tensor.
        dtype: of the tensor.
        memory: number of the storage; rows with one number share it.
        nbytes: of the storage.
        kept_bytes: what is kept of it, under the policy that was asked for.
        lossless: codec that keeps less without an error, by the operation alone: ``"mask"`` or ``"shape"``.
    """

    name: str
    call: int
    kind: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    memory: int
    nbytes: int
    kept_bytes: int
    lossless: str | None


@dataclass(frozen=True)
class Inventory:
    """Everything autograd saved in one forward pass.

    Args:
        rows: in the order they were saved.
        held: numbers of the storages that stay in memory anyway: parameters, buffers, the batch.
        total: bytes that are kept for the backward pass only, shared ones once.
    """

    rows: tuple[Saved, ...]
    held: frozenset[int]
    total: int

    def by_kind(self) -> dict[str, int]:
        """Kept bytes by kind of operation, largest first; a shared tensor counts where it was saved first."""
        sums: dict[str, int] = defaultdict(int)
        for row in self.rows:
            sums[row.kind] += row.kept_bytes
        return {kind: n for kind, n in sorted(sums.items(), key=lambda item: -item[1]) if n}

    def owners(self) -> list[Saved]:
        """The row that saved each storage first, without those that are held anyway."""
        first: dict[int, Saved] = {}
        for row in self.rows:
            if row.memory not in self.held:
                first.setdefault(row.memory, row)
        return list(first.values())

    def shared_with(self, row: Saved) -> list[str]:
        """Other places that saved the same memory."""
        names = (r.name for r in self.rows if r.memory == row.memory and (r.name, r.call) != (row.name, row.call))
        return list(dict.fromkeys(names))

    def to_json(self) -> dict[str, Any]:
        """JSON-able facts: total, sums by kind, and the rows that own memory."""
        rows = [
            {"name": r.name, "call": r.call, "kind": r.kind, "role": r.role, "shape": list(r.shape), "dtype": r.dtype,
             "bytes": r.nbytes, "kept_bytes": r.kept_bytes, "shared_with": self.shared_with(r), "lossless": r.lossless}
            for r in self.owners()
        ]  # fmt: skip
        return {"total": self.total, "by_kind": self.by_kind(), "rows": rows}


def inventory(step: TrainingStep, *, policy: CodecPolicy | None = None, seed: int = 0) -> Inventory:
    """List what autograd saves in the forward pass of a step.

    One forward pass is made; buffers and random state are put back.

    Args:
        step: gives model, batch and loss; no update is made.
        policy: list what is kept under it instead.
        seed: of random rounding.

    Example:
        >>> from torch import nn, randn
        >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
        >>> found = inventory(TrainingStep(net, randn(100, 64)))
        >>> [(r.kind, r.role, r.nbytes) for r in found.owners()]
        [('relu', 'result', 25600), ('(loss)', 'input', 3200)]
    """
    look = _Look(step, policy, seed)
    with undisturbed(step), look:
        loss = step.loss()
        found = look.found()
    del loss
    return found


class _Look(Observer):
    """Takes the minutes while the forward pass runs; the graph keeps every tensor alive until `found`."""

    def __init__(self, step: TrainingStep, policy: CodecPolicy | None, seed: int) -> None:
        entries = {"*": Keep()} if policy is None else read_policy(policy)
        self._watch = Watch(step.model, entries, seed, self)
        self._rest = saved_tensors_hooks(self._outside, lambda packed: packed.unpack())
        self._parameters = {t.untyped_storage()._cdata for t in (*step.model.parameters(), *step.model.buffers())}
        self._batch = {t.untyped_storage()._cdata for t in tensors_in((step.inputs, step.targets))}
        self._numbers: dict[int, tuple[StorageWeakRef, int]] = {}  # by address
        self._last = 0
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "_Look":
        self._rest.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._rest.__exit__(*exc)
        self._watch.remove()

    def _outside(self, t: Tensor) -> Packed:
        packed = kept(t)
        self.packed(t, packed)
        return packed

    def packed(self, t: Tensor, packed: Packed) -> None:
        """Write one line."""
        site = self._watch.site
        storage = t.untyped_storage()
        number = self._number(t)
        kind = site.kind if site else LOSS
        small = t.numel() < LEAST or not t.is_floating_point()
        way = kept_as(Recompute(), kind)
        self._rows.append({
            "name": site.name if site else LOSS, "call": site.call if site else 0, "kind": kind,
            "role": self._role(t), "shape": tuple(t.shape), "dtype": str(t.dtype).removeprefix("torch."),
            "memory": number, "nbytes": storage.nbytes(), "packed": packed,
            "lossless": str(way) if way != Keep() and way != Recompute() and not small else None,
        })  # fmt: skip

    def _number(self, t: Tensor) -> int:
        """Number of a storage; under a policy one may be freed and its address used again."""
        cdata = t.untyped_storage()._cdata
        reference, number = self._numbers.get(cdata, (None, 0))
        if reference is None or reference.expired():
            number, self._last = self._last, self._last + 1
            self._numbers[cdata] = StorageWeakRef(t.untyped_storage()), number
        return number

    def _role(self, t: Tensor) -> str:
        cdata = t.untyped_storage()._cdata
        if cdata in self._parameters:
            return "parameter"
        if cdata in self._batch:
            return "batch"
        arguments = [a.untyped_storage()._cdata for a in tensors_in(self._watch.arguments)]
        if cdata not in arguments:
            return "result" if self._watch.site else "input"
        return "input" if arguments[0] == cdata else "operand"

    def found(self) -> Inventory:
        """The list, while everything is still alive: kept tensors share storages, packed ones do not."""
        held = frozenset(r["memory"] for r in self._rows if r["role"] in ("parameter", "batch"))
        counted: set[int] = set()
        rows, total = [], 0
        for r in self._rows:
            packed, kept_bytes = r.pop("packed"), 0
            for t in packed.tensors:
                storage = t.untyped_storage()
                if storage._cdata not in counted and r["memory"] not in held:
                    counted.add(storage._cdata)
                    kept_bytes += storage.nbytes()
            total += kept_bytes
            rows.append(Saved(**r, kept_bytes=kept_bytes))
        return Inventory(tuple(rows), held, total)
