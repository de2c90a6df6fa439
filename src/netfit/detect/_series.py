"""One thing that is watched over time: the fleet by its groups, or one entity by its channels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netfit.detect._reduce import Held
from netfit.detect._window_pca import Temporal
from netfit.streaming import State

__all__ = ["Calibration", "Series", "SeriesRows"]

_HISTORY = 4096  # scores that calibrate
_PEER_CLIP, _PEER_ROWS = 10.0, 5  # of an entity's distances from its peers; rows they are averaged over


class SeriesRows(NamedTuple):
    """What a series says of n rows of F features.

    Attributes:
        score: (n,), 0 is usual and 1 the 99th percentile so far; NaN while nothing is known.
        share: what each feature adds to it, (n, F).
        expected: (n, F), NaN where nothing is expected.
    """

    score: NDArray[np.float64]
    share: NDArray[np.float64]
    expected: NDArray[np.float64]


class Calibration:
    """Scores on a common scale: 0 is the median so far and 1 the 99th percentile, learned again as scores double."""

    def __init__(self) -> None:
        self._past, self._seen, self._due = np.empty(0), 0, 100
        self._zero, self._one = np.nan, np.nan

    def run(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores (n,) on the common scale, not below 0; NaN before the first hundred."""
        out = np.full(len(scores), np.nan)
        at = 0
        while at < len(scores):
            take = min(len(scores) - at, self._due - self._seen)
            part = scores[at : at + take]
            out[at : at + take] = np.maximum(part - self._zero, 0) / (self._one - self._zero)
            self._past = np.concatenate([self._past, part])[-_HISTORY:]
            self._seen, at = self._seen + take, at + take
            if self._seen == self._due:
                self._learn()
        return out

    def _learn(self) -> None:
        self._due = self._seen + min(self._seen, 288)
        known = self._past[np.isfinite(self._past)]
        if len(known) >= 50:
            zero, one = np.quantile(known, [0.5, 0.99])
            self._zero, self._one = float(zero), float(max(one, zero + 1e-9 * max(1.0, abs(zero))))

    def state(self) -> State:
        """What a restart needs."""
        return {"past": self._past.copy(), "numbers": np.array([self._seen, self._due, self._zero, self._one])}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        seen, due, self._zero, self._one = (float(v) for v in state["numbers"])
        self._past, self._seen, self._due = state["past"].copy(), int(seen), int(due)


class Series:
    """A temporal model and its calibration; for an entity also how far its channels are from their peers.

    Args:
        temporal: settings of the model.
        held: what stands in for values that are missing.
        with_peers: whether distances from peers count.

    Attributes:
        names: of the features, in the order in which they came.
        model: of the settings, on this stream.
    """

    def __init__(self, temporal: Temporal, held: Held, with_peers: bool) -> None:
        self.names: list[str] = []
        self.model = temporal.start(0)
        self._held, self._own, self._peer = held, Calibration(), Calibration()
        self._with_peers = with_peers
        self._distances = np.empty(0)

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where these features are, the new ones at the end."""
        known = {name: i for i, name in enumerate(self.names)}
        for name in names:
            if name not in known:
                known[name] = len(self.names)
                self.names.append(name)
        self._held.widen(len(self.names))
        self.model.widen(len(self.names))
        return np.array([known[name] for name in names], np.int64)

    def rows(
        self, values: NDArray[np.float64], places: NDArray[np.int64], z: NDArray[np.float64] | None = None
    ) -> SeriesRows:
        """Score the next rows.

        Args:
            values: (n, features given), NaN where absent.
            places: of the features given.
            z: distances of the same features from their peers, NaN where absent.
        """
        wide = np.full((len(values), len(self.names)), np.nan)
        wide[:, places] = values
        found = self.model.rows(self._held.fill(wide), np.isfinite(wide))
        own = self._own.run(found.score)
        share = _normalised(found.share) * np.nan_to_num(own)[:, None]
        if not self._with_peers or z is None:
            return SeriesRows(own, share, found.expected)
        distance = np.minimum(np.abs(z), _PEER_CLIP)
        there = np.isfinite(distance)
        square = np.where(there, distance, 0.0) ** 2
        peer = self._peer.run(self._smooth(np.sqrt(square.sum(1) / np.maximum(there.sum(1), 1))))
        share[:, places] += _normalised(square) * np.nan_to_num(peer)[:, None]
        parts = np.stack([own, peer])
        known = np.isfinite(parts)
        score = np.where(known.any(0), np.where(known, parts, 0.0).sum(0) / 2, np.nan)
        return SeriesRows(score, share / 2, found.expected)

    def _smooth(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the last rows, in the same order of additions however the stream is cut."""
        stream = np.concatenate([self._distances, distances])
        before = len(self._distances)
        self._distances = stream[len(stream) - min(len(stream), _PEER_ROWS - 1) :].copy()
        padded = np.concatenate([np.full(_PEER_ROWS - 1, np.nan), stream])
        windows = np.lib.stride_tricks.sliding_window_view(padded, _PEER_ROWS)[before:]
        there = np.isfinite(windows)
        total = np.zeros(len(windows))
        for i in range(_PEER_ROWS):
            total += np.where(there[:, i], windows[:, i], 0.0)
        return total / there.sum(1).clip(1)

    def state(self) -> State:
        """What a restart needs."""
        parts = {"model": self.model.state(), "own": self._own.state(), "peer": self._peer.state()}
        return {**parts, "names": list(self.names), "held": self._held.last.copy(), "distances": self._distances.copy()}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self.names = list(state["names"])
        self._held.last, self._distances = state["held"].copy(), state["distances"].copy()
        self.model.widen(len(self.names))
        self.model.restore(state["model"])
        self._own.restore(state["own"])
        self._peer.restore(state["peer"])


def _normalised(share: NDArray[np.float64]) -> NDArray[np.float64]:
    total = share.sum(1, keepdims=True)
    return np.divide(share, total, out=np.zeros_like(share), where=total > 0)
