"""The temporal stage without torch: what a window of rows has that the windows before it had not."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError
from netfit.streaming import State

__all__ = ["Temporal", "TemporalModel", "TemporalRows", "WindowPCA"]

_INPUTS = 512  # of one decomposition: its cost grows with the cube, so more inputs are taken in blocks of features


class TemporalRows(NamedTuple):
    """What a temporal model says of n rows of F features.

    Attributes:
        score: (n,), NaN while there is no model yet.
        share: what each feature adds to it, (n, F).
        expected: value that each feature should have had, (n, F).
    """

    score: NDArray[np.float64]
    share: NDArray[np.float64]
    expected: NDArray[np.float64]


class TemporalModel(Protocol):
    """A temporal stage on its stream."""

    def rows(self, values: NDArray[np.float64], present: NDArray[np.bool_]) -> TemporalRows:
        """Score the next rows (n, F), without NaN; what is not present adds nothing."""

    def widen(self, features: int) -> None:
        """Make room for features that are new at the end."""

    def state(self) -> State:
        """What a restart needs."""

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""


@runtime_checkable
class Temporal(Protocol):
    """Settings of a temporal stage."""

    def start(self, features: int) -> TemporalModel:
        """A model of this many features that has seen no row."""


@dataclass(frozen=True)
class WindowPCA:
    """Principal components of windows of rows, fitted again and again to all rows so far.

    The score is the mean over features of the root mean square, over the window, of what the components leave. Windows
    that stood out most since the last fit are not learned from.

    Args:
        window: rows.
        variance: share that the components keep.
        refit: rows between fits; the first ones follow each other faster.
        trim: share of the windows since the last fit that are learned from.
        clip: of standardised values.

    Raises:
        ConfigError: a number is out of range.
    """

    window: int = 10
    variance: float = 0.97
    refit: int = 288
    trim: float = 0.95
    clip: float = 5.0

    def __post_init__(self) -> None:
        if self.window < 1 or self.refit < 4 * self.window:
            raise ConfigError(f"window={self.window}, refit={self.refit}: choose at least 1, and 4 windows a fit")
        for name in ("variance", "trim"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: choose a share above 0, at most 1")
        if not self.clip > 0:
            raise ConfigError(f"clip={self.clip!r}: choose a positive number")

    def start(self, features: int) -> "WindowPCAModel":
        """A model of this many features that has seen no row."""
        return WindowPCAModel(self, features)


def slices(window: int, features: int) -> list[slice]:
    """Features that are decomposed together."""
    width = max(1, _INPUTS // window)
    return [slice(at, min(at + width, features)) for at in range(0, features, width)]


class _Block:
    """Sums over windows of some features, and the components that follow from them."""

    ARRAYS = ("total", "square", "low", "high", "mean", "std", "components")

    def __init__(self, inputs: int) -> None:
        self.weight = 0.0
        self.total, self.square = np.zeros(inputs), np.zeros((inputs, inputs))
        self.low, self.high = np.full(inputs, np.inf), np.full(inputs, -np.inf)
        self.mean = self.std = np.zeros(0)
        self.components = np.zeros((inputs, 0))

    def learn(self, windows: NDArray[np.float64], variance: float) -> None:
        self.weight += len(windows)
        self.total = self.total + windows.sum(0)
        self.square = self.square + windows.T @ windows
        self.low, self.high = np.minimum(self.low, windows.min(0)), np.maximum(self.high, windows.max(0))
        self.mean = self.total / self.weight
        covariance = self.square / self.weight - np.outer(self.mean, self.mean)
        # A floor of 1 %: a feature that hardly ever moved must not turn every tick into a large deviation.
        floor = 0.01 * np.maximum(self.high - self.low, np.abs(self.mean)) + 1e-12
        self.std = np.sqrt(np.maximum(np.diag(covariance), 0)) + floor
        values, vectors = np.linalg.eigh(covariance / np.outer(self.std, self.std))
        kept = np.cumsum(np.maximum(values[::-1], 0))
        count = int((kept < variance * kept[-1]).sum()) + 1 if kept[-1] > 0 else 1
        self.components = np.ascontiguousarray(vectors[:, -count:])

    def residual(self, windows: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
        z = np.clip((windows - self.mean) / self.std, -clip, clip)
        return np.asarray(z - (z @ self.components) @ self.components.T)


class WindowPCAModel:
    """`WindowPCA` on its stream.

    Args:
        config: settings.
        features: columns of the rows.
    """

    def __init__(self, config: WindowPCA, features: int) -> None:
        self._config = config
        self._rows, self._scores = np.empty((0, features)), np.empty(0)
        self._seen, self._fitted, self._features = 0, 0, features
        self._blocks: list[_Block] = []

    def widen(self, features: int) -> None:
        """Make room for features that are new at the end; they count from the next fit on."""
        more = np.zeros((len(self._rows), features - self._rows.shape[1]))
        self._rows = np.concatenate([self._rows, more], axis=1)

    def rows(self, values: NDArray[np.float64], present: NDArray[np.bool_]) -> TemporalRows:
        """Score the next rows; a fit falls on the same row however the stream is cut."""
        parts, at = [], 0
        while at < len(values):
            since = self._seen - self._fitted
            due = min(self._config.refit, max(4 * self._config.window, self._fitted))
            take = min(len(values) - at, due - since)
            parts.append(self._segment(values[at : at + take], present[at : at + take]))
            at += take
            if since + take == due:
                self._fit()
        if not parts:
            return TemporalRows(np.empty(0), np.empty(values.shape), np.empty(values.shape))
        return TemporalRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _windows(self, rows: NDArray[np.float64], block: slice) -> NDArray[np.float64]:
        size = self._config.window
        if len(rows) < size:
            return np.empty((0, size * len(range(*block.indices(rows.shape[1])))))
        windows = np.lib.stride_tricks.sliding_window_view(rows[:, block], size, axis=0)
        return windows.transpose(0, 2, 1).reshape(len(windows), -1)

    def _segment(self, values: NDArray[np.float64], present: NDArray[np.bool_]) -> TemporalRows:
        n, size = len(values), self._config.window
        self._rows = np.concatenate([self._rows, values])
        self._seen += n
        score, share, expected = np.full(n, np.nan), np.zeros(values.shape), np.full(values.shape, np.nan)
        recent = self._rows[-(n + size - 1) :]
        for block, part in zip(self._blocks, slices(size, self._features), strict=False):  # no block before a fit
            windows = self._windows(recent, part)
            residual = block.residual(windows, self._config.clip).reshape(len(windows), size, -1)
            tail = slice(n - len(windows), n)
            share[tail, part] = np.sqrt((residual**2).mean(1)) * present[tail, part]
            expected[tail, part] = recent[size - 1 :, part] - residual[:, -1] * block.std.reshape(size, -1)[-1]
        if self._blocks:
            tail = slice(max(0, n - (len(recent) - size + 1)), n)
            counted = present[tail, : self._features].sum(1)
            score[tail] = share[tail].sum(1) / np.maximum(counted, 1)
        self._scores = np.concatenate([self._scores, score])
        return TemporalRows(score, share, expected)

    def _fit(self) -> None:
        features, size = self._rows.shape[1], self._config.window
        parts = slices(size, features)
        if features != self._features or not self._blocks:
            self._features = features
            self._blocks = [_Block(size * len(range(*part.indices(features)))) for part in parts]
        count = max(0, len(self._rows) - size + 1)
        scores = self._scores[len(self._scores) - count :]
        keep = np.ones(count, bool)
        if (scored := np.isfinite(scores)).any():
            keep = ~(scores > np.quantile(scores[scored], self._config.trim))
        for block, part in zip(self._blocks, parts, strict=True):
            block.learn(self._windows(self._rows, part)[keep], self._config.variance)
        self._fitted = self._seen
        self._rows = self._rows[len(self._rows) - (size - 1) :].copy()
        self._scores = np.empty(0)

    def state(self) -> State:
        """What a restart needs."""
        blocks = {
            str(i): {"weight": block.weight, **{name: getattr(block, name).copy() for name in block.ARRAYS}}
            for i, block in enumerate(self._blocks)
        }
        numbers = {"seen": self._seen, "fitted": self._fitted, "features": self._features}
        return {**numbers, "rows": self._rows.copy(), "scores": self._scores.copy(), "blocks": blocks}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._rows, self._scores = state["rows"].copy(), state["scores"].copy()
        self._seen, self._fitted, self._features = state["seen"], state["fitted"], state["features"]
        self._blocks = []
        for i in range(len(state["blocks"])):
            saved = state["blocks"][str(i)]
            block = _Block(0)
            block.weight = saved["weight"]
            for name in block.ARRAYS:
                setattr(block, name, saved[name].copy())
            self._blocks.append(block)
