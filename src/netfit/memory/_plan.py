"""`plan`: a training step that fits a budget, with its price stated before training starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import nn

from netfit.errors import ArtifactError, ConfigError
from netfit.surgery import Policy

from ._budget import BudgetError, limit_of, megabytes
from ._compress import Handle, compress_saved
from ._inventory import Inventory, inventory
from ._liveness import liveness
from ._measure import MemoryReport, measure
from ._prices import LADDER, Prices, Unit, gradients, prices, relative_error, units
from ._save_as import SaveAs
from ._solve import Choice, Problem, problem, solve
from ._step import TrainingStep

__all__ = ["MemoryPlan", "plan"]

_TRIES = 4  # each measures the real peak and corrects the next choice by what was wrong
_TIGHT = 0.93  # of the budget: using less of it than this is worth another try


@dataclass(frozen=True)
class MemoryPlan:
    """How every saved tensor is kept, and what that costs.

    Args:
        words: codec word by site name; empty when nothing has to be compressed.
        budget: bytes that were asked for; None for the least memory within the error.
        base: the step as it is.
        after: the step under the plan, measured.
        predicted_peak: bytes, before the last measurement.
        predicted_error: relative gradient error as the sum of what was measured one by one.
        error: the same measured jointly, on the step's batch.
        rows: name, kind, bytes and kept bytes of every tensor that is packed.
    """

    words: Mapping[str, str]
    budget: int | None
    base: MemoryReport
    after: MemoryReport
    predicted_peak: int
    predicted_error: float
    error: float
    rows: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def policy(self) -> Policy:
        """The plan as a policy file's content, for `netfit.apply`."""
        return Policy({name: SaveAs(word) for name, word in self.words.items()})

    def apply(self, model: nn.Module, *, seed: int = 0) -> Handle:
        """Keep a model's activations as planned, from the next forward pass on."""
        return compress_saved(model, dict(self.words), seed=seed) if self.words else Handle(lambda: None)

    def table(self) -> str:
        """The price in a few lines."""
        lines = [("", "as it is", "planned", "ratio")]
        pairs = (
            ("peak", self.base.peak, self.after.peak),
            ("saved", self.base.saved or 0, self.after.saved or 0),
        )
        lines += [(name, megabytes(a), megabytes(b), f"{b / a:.3f}" if a else "") for name, a, b in pairs]
        before, now = self.base.seconds, self.after.seconds
        lines.append(("step", f"{before:.4g} s", f"{now:.4g} s", f"{now / before:.3f}" if before else ""))
        lines.append(("gradient error", "0", f"{self.error:.3g}", ""))
        widths = [max(len(line[i]) for line in lines) for i in range(4)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def to_json(self) -> dict[str, Any]:
        """JSON object that `from_json` reads back."""
        return {
            "words": dict(self.words), "budget": self.budget, "base": self.base.to_json(),
            "after": self.after.to_json(), "predicted_peak": self.predicted_peak,
            "predicted_error": self.predicted_error, "error": self.error, "rows": [dict(r) for r in self.rows],
        }  # fmt: skip

    @classmethod
    def from_json(cls, obj: Mapping[str, Any]) -> "MemoryPlan":
        """Read what `to_json` wrote.

        Raises:
            ArtifactError: it is something else.
        """
        try:
            reports = {name: MemoryReport.from_json(obj[name]) for name in ("base", "after")}
            words = {str(k): str(v) for k, v in obj["words"].items()}
            made = cls(**{**obj, **reports, "words": words, "rows": tuple(obj["rows"])})
            [SaveAs(word) for word in words.values()]
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise ArtifactError(f"not a memory plan: {e}") from e
        return made


def plan(
    step: TrainingStep,
    budget: str | float | None = None,
    *,
    max_grad_error: float = 0.1,
    objective: Literal["gradient", "time"] = "gradient",
    seed: int = 0,
) -> MemoryPlan:
    """Find how to keep a step's activations so that its peak stays within a budget, and measure that it does.

    What is exact is tried first: nothing, then masks and recomputation. Beyond that each tensor is kept in 8, 4 or 2
    bits, chosen by the measured gradient error of each, over the step's whole timeline. The plan is then measured
    with the real step, corrected and measured again until it holds. Errors depend on the values: give real data.

    Args:
        step: model, a real batch, loss and optimizer, as they will train.
        budget: bytes, ``"2GB"``, or a part of the step's own peak (``0.5``); None for the least memory.
        max_grad_error: most relative error of the gradient (all parameters together, this batch).
        objective: what is spared beyond that, ``"gradient"`` or ``"time"``.
        seed: of random rounding and dropout.

    Raises:
        ConfigError: a budget or error that makes no sense.
        BudgetError: the budget is below the floor, which the message itemises.
    """
    if not max_grad_error > 0 or objective not in ("gradient", "time"):
        raise ConfigError(
            f"max_grad_error={max_grad_error}, objective={objective!r}: more than 0; 'gradient' or 'time'"
        )
    base = measure(step, seed=seed)
    limit = None if budget is None else limit_of(budget, base.peak)
    if limit is not None:
        if base.peak <= limit:
            return MemoryPlan({}, limit, base, base, base.peak, 0.0, 0.0)
        exact = measure(step, policy="lossless", seed=seed)
        if exact.peak <= limit:
            rows = _rows(inventory(step, seed=seed), inventory(step, policy="lossless", seed=seed))
            return MemoryPlan({"*": "lossless"}, limit, base, exact, exact.peak, 0.0, 0.0, rows)
    return _Planner(step, base, max_grad_error, objective == "time", seed).fit(limit)


class _Planner:
    """Measurements of one step, and the search on them."""

    def __init__(self, step: TrainingStep, base: MemoryReport, max_error: float, by_time: bool, seed: int) -> None:
        self._step, self._base, self._max_error, self._by_time, self._seed = step, base, max_error, by_time, seed
        self._allowed = max_error  # of the predicted error
        self._found = inventory(step, seed=seed)
        self._units: list[Unit] = units(self._found)
        self._prices: Prices = prices(step, self._found, self._units, seed)
        smallest = LADDER[-1]
        live = liveness(step, self._found, self._prices.nbytes[:, -1], smallest, seed)
        self._problem: Problem = problem(live, self._units, self._prices)
        self._held = sum(base.held.values())

    def fit(self, limit: int | None) -> MemoryPlan:
        """The plan for a limit in bytes, or the least one."""
        floor, missed = self._floor(), 0.0
        best: MemoryPlan | None = None
        for _ in range(_TRIES):
            aim = floor if limit is None else limit - missed
            choice = self._solve(max(aim, floor))
            if choice is None:
                break
            made = self._measured(choice, limit, missed if limit else 0.0)
            missed = made.after.peak - self._held - self._problem.peak(choice)
            if made.error > self._max_error:  # single errors do not add up exactly, and what was allowed is a promise
                self._allowed *= 0.98 * self._max_error / made.error
                floor = self._floor()
                continue
            if limit is None:
                best = made
                break
            if made.after.peak <= limit and (best is None or made.error <= best.error):
                best = made
            if best is made and (made.after.peak >= _TIGHT * limit or not made.predicted_error):
                break
            if made.after.peak > limit and floor + missed > limit:
                break
        if best is None or limit is None:
            best = self._uniform(limit, best)
        if best is None and limit is not None:
            raise self._below(limit, floor, missed)
        return best or self._measured(np.zeros(len(self._units), dtype=np.int64), limit, 0.0)

    def _uniform(self, limit: int | None, best: MemoryPlan | None) -> MemoryPlan | None:
        """At the floor what is left over is the model's own error: one word for everything may be below it."""
        allowed = [
            choice
            for word in range(1, len(LADDER))
            if self._problem.total(self._problem.error, choice := np.full(len(self._units), word)) <= self._max_error**2
        ]
        for choice in allowed if limit is not None else allowed[-1:]:
            made = self._measured(choice, limit, 0.0)
            most = limit if limit is not None else best.after.peak if best else math.inf
            if made.after.peak <= most and made.error <= self._max_error:
                return made
        return best

    def _solve(self, limit: float) -> Choice | None:
        return solve(self._problem, limit - self._held, self._allowed, by_time=self._by_time)

    def _floor(self) -> float:
        """Least peak that any choice within the error reaches, as predicted."""
        low = self._held + float(self._problem.other.max(initial=0.0))
        high = self._held + self._problem.peak(np.zeros(len(self._units), dtype=np.int64))
        if not self._units:
            return high
        while high - low > 1e-3 * high:
            middle = (low + high) / 2
            choice = self._solve(middle)
            low, high = (middle, high) if choice is None else (low, middle)
        return high * 1.001

    def _measured(self, choice: Choice, limit: int | None, missed: float) -> MemoryPlan:
        words = {n: LADDER[c] for unit, c in zip(self._units, choice, strict=True) if c for n in unit.names}
        after = measure(self._step, policy=words or None, seed=self._seed)
        plain, _ = gradients(self._step, None, self._seed)
        error = relative_error(plain, gradients(self._step, words, self._seed)[0]) if words else 0.0
        predicted = round(self._held + self._problem.peak(choice) + missed)
        guess = math.sqrt(self._problem.total(self._problem.error, choice))
        rows = _rows(self._found, inventory(self._step, policy=words, seed=self._seed)) if words else ()
        return MemoryPlan(words, limit, self._base, after, predicted, guess, error, rows)

    def _below(self, limit: int, floor: float, missed: float) -> BudgetError:
        """Name what the least memory is made of; the last try was at the floor, so what it missed is known."""
        choice = self._solve(floor)
        worst = 0 if choice is None else int(self._problem.memory(choice).argmax())
        other = 0 if choice is None else int(self._problem.other[worst])
        saved = max(round(floor) - self._held - other, 0)
        parts = {**self._base.held, "compressed activations": saved, "workspaces and gradients": round(other + missed)}
        return BudgetError.below(limit, round(floor + missed), parts, self._max_error)


def _rows(found: Inventory, packed: Inventory) -> tuple[dict[str, Any], ...]:
    """Tensors of which less is kept than they have, by the operation that saved them first."""
    kept: dict[int, int] = {}
    for original, row in zip(found.rows, packed.rows, strict=True):
        kept[original.memory] = kept.get(original.memory, 0) + row.kept_bytes
    return tuple(
        {"name": r.name, "kind": r.kind, "shape": list(r.shape), "bytes": r.nbytes, "kept_bytes": kept[r.memory]}
        for r in found.owners()
        if kept[r.memory] < r.nbytes
    )
