"""One choice per unit: least price under a limit that holds at every moment of the step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._liveness import Liveness
from ._prices import Prices, Unit

__all__ = ["Problem", "problem", "solve"]

Floats = NDArray[np.float64]
Choice = NDArray[np.int64]
_PRICES = (1e-3, 1e-1, 1.0, 10.0, 1e3)  # of the whole error allowance, in steps' time


@dataclass(frozen=True)
class Problem:
    """A multiple-choice knapsack with a row for every moment.

    Args:
        other: bytes at each moment that no choice changes, (moments,).
        weight: bytes that a choice adds at a moment, (moments, units, words).
        error: squared gradient error of a choice, (units, words).
        seconds: time of a choice, in steps, (units, words).
    """

    other: Floats
    weight: NDArray[np.float32]
    error: Floats
    seconds: Floats

    def memory(self, choice: Choice) -> Floats:
        """Bytes at each moment."""
        return np.asarray(self.other + self.weight[:, np.arange(len(choice)), choice].sum(1, dtype=np.float64))

    def peak(self, choice: Choice) -> float:
        """Most bytes at once."""
        return float(self.memory(choice).max())

    def total(self, costs: Floats, choice: Choice) -> float:
        """Sum of a cost over all units."""
        return float(costs[np.arange(len(choice)), choice].sum())


def problem(live: Liveness, parts: list[Unit], costs: Prices) -> Problem:
    """Put liveness and prices together, and leave out moments that can never be the peak."""
    words = costs.nbytes.shape[1]
    chosen = {m for unit in parts for m in unit.memories}
    rest = [m for m in range(len(costs.nbytes)) if m not in chosen]
    # What no unit decides is kept as it is, packed or not.
    other = live.other + live.alive[:, rest] @ costs.nbytes[rest, 0]
    weight = np.zeros((len(other), len(parts), words), dtype=np.float32)
    for u, unit in enumerate(parts):
        at = list(unit.memories)
        for w in range(words):
            weight[:, u, w] = live.alive[:, at] @ costs.nbytes[at, w]
        # While it is read, a tensor that is kept as it is needs no second copy.
        weight[:, u, 0] -= live.reading[:, at] @ costs.nbytes[at, 0]
    most, least = weight.max(2).sum(1) + other, weight.min(2).sum(1) + other
    may = most >= least.max()
    seconds = costs.seconds / max(costs.step_seconds, 1e-9)
    return Problem(other[may], weight[may], costs.error, seconds)


def solve(p: Problem, limit: float, max_error: float, *, by_time: bool) -> Choice | None:
    """Cheapest choice whose memory stays below a limit and whose error does not exceed another.

    Args:
        p: the problem.
        limit: bytes.
        max_error: relative gradient error.
        by_time: mind time first and the error only as far as it must; else the other way round.

    Returns:
        A word per unit, None when there is none.
    """
    allowance = max(max_error, 1e-12) ** 2
    for price in _PRICES if by_time else _PRICES[-1:]:
        choice = _under(p, limit, p.seconds + price * p.error / allowance)
        if choice is not None and p.total(p.error, choice) <= allowance:
            return choice
    return None


def _under(p: Problem, limit: float, costs: Floats) -> Choice | None:
    """Lagrangian bisection on the price of a byte, then every unit takes back what there is room for."""
    size = p.weight.max(0).astype(np.float64)
    low, high, best = 0.0, None, None
    price = 1e-12
    for _ in range(60):
        choice = np.asarray((costs + price * size).argmin(1))
        if p.peak(choice) <= limit:
            high, best = price, choice
        else:
            low = price
        price = price * 8 if high is None else (low + high) / 2
        if high is not None and high - low < 1e-3 * high:
            break
    return None if best is None else _take_back(p, limit, costs, best)


def _take_back(p: Problem, limit: float, costs: Floats, choice: Choice) -> Choice:
    choice, room = choice.copy(), limit - p.memory(choice)
    rows = np.arange(len(choice))
    gains = costs[rows, choice][:, None] - costs
    for u, w in sorted(np.argwhere(gains > 0).tolist(), key=lambda uw: -gains[uw[0], uw[1]]):
        if costs[u, w] >= costs[u, choice[u]]:
            continue
        added = p.weight[:, u, w].astype(np.float64) - p.weight[:, u, choice[u]]
        if (added <= room).all():
            room = room - added
            choice[u] = w
    return choice
