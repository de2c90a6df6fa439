"""Blocks to windows and back; how the stream is cut into blocks never shows in the result."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from netfit.errors import ConfigError
from netfit.streaming._state import State

__all__ = ["Frames", "OverlapAdd"]


class Frames:
    """Overlapping windows of a stream.

    Args:
        size: steps of a window.
        hop: steps from one window to the next, at most `size`.
        shape: of one step; () for a stream of numbers.
        dtype: of the windows.

    Raises:
        ConfigError: not 1 <= hop <= size.

    Example:
        >>> frames = Frames(size=3, hop=2)
        >>> frames.push([0, 1]).shape, frames.push([2, 3, 4, 5]).tolist()
        ((0, 3), [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    """

    def __init__(self, size: int, hop: int = 1, shape: Sequence[int] = (), dtype: DTypeLike = np.float64) -> None:
        _check(size, hop)
        self.size, self.hop = size, hop
        self._rest: NDArray[Any] = np.empty((0, *shape), dtype)

    def push(self, block: ArrayLike) -> NDArray[Any]:
        """Take the next steps of the stream.

        Args:
            block: (n, *shape), any n.

        Returns:
            the windows that are now complete, (k, size, *shape); a copy.
        """
        stream = np.concatenate([self._rest, np.asarray(block, self._rest.dtype)])
        k = max(0, (len(stream) - self.size) // self.hop + 1)
        starts = np.arange(k) * self.hop
        self._rest = stream[k * self.hop :].copy()
        return stream[starts[:, None] + np.arange(self.size)]

    @property
    def pending(self) -> NDArray[Any]:
        """Steps that the next window begins with, (fewer than size, *shape)."""
        return self._rest

    def state(self) -> State:
        """What a restart needs."""
        return {"rest": self._rest.copy()}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: it belongs to windows of other steps.
        """
        self._rest = restored("rest", state, self._rest, most=self.size - 1)


class OverlapAdd:
    """The sum of overlapping windows, as a stream: step t is handed out once no later window touches it.

    Args:
        size: steps of a window.
        hop: steps from one window to the next, at most `size`.
        shape: of one step.
        dtype: of the sum.

    Raises:
        ConfigError: not 1 <= hop <= size.

    Example:
        >>> add = OverlapAdd(size=3, hop=2)
        >>> add.push([[1, 1, 1], [1, 1, 1]]).tolist(), add.flush().tolist()
        ([1.0, 1.0, 2.0, 1.0], [1.0])
    """

    def __init__(self, size: int, hop: int, shape: Sequence[int] = (), dtype: DTypeLike = np.float64) -> None:
        _check(size, hop)
        self.size, self.hop = size, hop
        self._tail: NDArray[Any] = np.zeros((size - hop, *shape), dtype)

    def push(self, frames: ArrayLike) -> NDArray[Any]:
        """Add the next windows.

        Args:
            frames: (k, size, *shape), any k.

        Returns:
            the steps that are now complete, (k * hop, *shape).
        """
        windows = np.asarray(frames, self._tail.dtype)
        k, done = len(windows), len(windows) * self.hop
        total = np.zeros((done + self.size - self.hop, *self._tail.shape[1:]), self._tail.dtype)
        total[: len(self._tail)] = self._tail
        for i in range(k):  # in the order of time, so that sums do not depend on the blocks
            total[i * self.hop : i * self.hop + self.size] += windows[i]
        self._tail = total[done:].copy()
        return total[:done]

    def flush(self) -> NDArray[Any]:
        """The steps that wait for windows that will not come, (size - hop, *shape); the stream starts anew."""
        tail, self._tail = self._tail, np.zeros_like(self._tail)
        return tail

    def state(self) -> State:
        """What a restart needs."""
        return {"tail": self._tail.copy()}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken.

        Raises:
            ConfigError: it belongs to windows of other sizes.
        """
        self._tail = restored("tail", state, self._tail, most=self.size - self.hop)


def restored(name: str, state: State, like: NDArray[Any], most: int) -> NDArray[Any]:
    """An array of the state, if its steps have the form of `like` and there are not too many of them."""
    found = np.asarray(state.get(name))
    if found.shape[1:] != like.shape[1:] or found.dtype != like.dtype or found.ndim < 1 or len(found) > most:
        wanted = f"at most {most} steps of {like.shape[1:]} {like.dtype}"
        raise ConfigError(f"a state with {name} of {found.shape} {found.dtype} does not fit here: expected {wanted}")
    return found.copy()


def _check(size: int, hop: int) -> None:
    if not 1 <= hop <= size:
        raise ConfigError(f"size={size} and hop={hop} of windows: choose 1 <= hop <= size")
