"""Dense where dense is faster: asked once for every size of input, by running both."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FasterDense", "faster", "state_of"]

_CLEAR = 10  # with that many times fewer multiply-accumulates the factors were faster for every batch measured
_LANES = 16  # samples that the native product takes at once, however few there are
_LARGE = 1 << 25  # bytes of a whole weight that no cache holds: reading it takes longer than any factors
_TURNS, _VISIT_S = 9, 2e-4
_MARGIN = 1.05  # dense is the familiar one: it need not win, only not lose clearly
_DETOUR_S = 5e-6  # of Python that a call by factors takes and the short way to the whole weight does not
_SHAPES = 64  # exact sizes remembered for the short way


class FasterDense:
    """Runs a layer in inference by its factors or by its whole weight, whichever takes less time for such an input.

    Args:
        saved: how many times fewer multiply-accumulates the factors need.
        nbytes: of the whole weight.
        features: values of one sample of the input.
    """

    def __init__(self, saved: float, nbytes: int, features: int) -> None:
        self._settings = saved, nbytes, features
        self._wins: dict[tuple[int, ...], bool] = {}
        self._weight: tuple[Any, Tensor | None] = (None, None)
        self._shapes: set[torch.Size] = set()  # of inputs that the whole weight is known to be faster for

    def quick(self, x: Tensor, parameters: Iterable[Tensor | None]) -> Tensor | None:
        """The whole weight where it is known to be faster for an input of this very size, found without a detour.

        A layer of some microseconds would otherwise spend as much on finding out that it is dense.

        Args:
            x: the input.
            parameters: that the weight is made of.
        """
        if torch.compiler.is_compiling() or x.shape not in self._shapes or torch.is_grad_enabled():
            return None
        if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
            return None
        state, weight = self._weight
        return weight if state == state_of(parameters) else None

    def run(
        self, x: Tensor, state: Any, by_factors: Callable[[Tensor], Tensor],
        by_weight: Callable[[Tensor, Tensor], Tensor], weight: Callable[[], Tensor],
    ) -> Tensor:  # fmt: skip
        """The layer's result.

        Args:
            x: its input.
            state: changes when the parameters do, see `state_of`.
            by_factors: the layer, by its factors.
            by_weight: the layer, by the weight given.
            weight: makes that weight, which is kept as long as it is needed.
        """
        saved, nbytes, features = self._settings
        few = min(1.0, x.numel() / (features * _LANES))
        if saved * few > _CLEAR or nbytes > _LARGE or not x.numel():
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
        if not wins:
            return by_factors(x)
        if len(self._shapes) < _SHAPES:
            self._shapes.add(x.shape)
        return by_weight(x, dense)

    def __deepcopy__(self, memo: Any) -> "FasterDense":
        return FasterDense(*self._settings)


def state_of(parameters: Iterable[Tensor | None]) -> list[int]:
    """Differs whenever a parameter was written to, moved or cast."""
    state = []
    for p in parameters:
        if p is not None:
            state += [p.data_ptr(), p._version]
    return state


def faster(one: Callable[[], object], other: Callable[[], object]) -> bool:
    """Whether the first call takes less time, or hardly more: the least of some turns each, on this process's clock.

    Neighbours on the machine only add to a turn, so the least of several is what a call takes without them.
    """
    calls = [(one, _repeats(one)), (other, _repeats(other))]
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    least = [float("inf"), float("inf")]
    for _ in range(_TURNS):
        for i, (call, repeats) in enumerate(calls):
            start = clock()
            for _ in range(repeats):
                call()
            least[i] = min(least[i], (clock() - start) / repeats)
    return least[0] < _MARGIN * (least[1] + _DETOUR_S)


def _repeats(call: Callable[[], object]) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, round(_VISIT_S / max(time.perf_counter() - start, 1e-7)))
