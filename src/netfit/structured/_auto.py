"""Dense where dense is faster: asked once for every size of input, by running both."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FasterDense", "faster", "state_of"]

_CLEAR = 10  # with that many times fewer multiply-accumulates the factors were faster for every batch measured
_TURNS, _VISIT_S = 5, 1e-4


class FasterDense:
    """Runs a layer in inference by its factors or by its whole weight, whichever takes less time for such an input.

    Args:
        saved: how many times fewer multiply-accumulates the factors need.
    """

    def __init__(self, saved: float) -> None:
        self._saved = saved
        self._wins: dict[tuple[int, ...], bool] = {}
        self._weight: tuple[Any, Tensor | None] = (None, None)

    def run(
        self, x: Tensor, state: Any, by_factors: Callable[[Tensor], Tensor],
        by_weight: Callable[[Tensor, Tensor], Tensor], weight: Callable[[], Tensor],
    ) -> Tensor:  # fmt: skip
        """The layer's result.

        Args:
            x: its input.
            state: changes when the parameters do.
            by_factors: the layer, by its factors.
            by_weight: the layer, by the weight given.
            weight: makes that weight, which is kept as long as it is needed.
        """
        if self._saved > _CLEAR or not x.numel():
            return by_factors(x)
        size = tuple(n.bit_length() for n in x.shape)
        wins = self._wins.get(size)
        if wins is False:
            return by_factors(x)
        if self._weight[0] != state or self._weight[1] is None:
            self._weight = state, weight()
        dense = self._weight[1]
        assert dense is not None
        if wins is None:
            wins = self._wins[size] = faster(lambda: by_weight(x, dense), lambda: by_factors(x))
            if not any(self._wins.values()):
                self._weight = None, None
        return by_weight(x, dense) if wins else by_factors(x)

    def __deepcopy__(self, memo: Any) -> "FasterDense":
        return FasterDense(self._saved)


def state_of(parameters: Iterable[Tensor | None]) -> list[int]:
    """Differs whenever a parameter was written to, moved or cast."""
    return [n for p in parameters if p is not None for n in (p.data_ptr(), p._version)]


def faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether the first call takes less time: the least of a few turns each, on the clock of this process."""
    calls = [(one, _repeats(one)), (other, _repeats(other))]
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    least = [float("inf"), float("inf")]
    for _ in range(_TURNS):
        for i, (call, repeats) in enumerate(calls):
            start = clock()
            for _ in range(repeats):
                call()
            least[i] = min(least[i], (clock() - start) / repeats)
    return least[0] < least[1]


def _repeats(call: Callable[[], object]) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, round(_VISIT_S / max(time.perf_counter() - start, 1e-7)))
