"""How well a predictor does on what it has not seen, with the honest protocols first."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean

from ._features import Samples
from ._predictor import KernelPredictor

__all__ = ["PROTOCOLS", "Evaluation", "Score", "evaluate"]

FloatArray = NDArray[np.float64]
_Split = tuple[str, NDArray[np.intp], NDArray[np.intp]]

# Protocol to the label whose values are left out; None where rows are drawn at random.
PROTOCOLS: dict[str, str | None] = {
    "leave-kernel-out": "kernel",
    "leave-device-out": "device",
    "leave-app-out": "app",
    "leave-shape-out": "shape",
    "leave-sample-out": None,
    "mangrove": None,
}
_MOST_FOLDS, _ONE_BY_ONE = 5, 12
_REPEATS, _LARGEST, _STRATA_S = 3, 5, (1e-3, 1e-1)
LEAK = 3.0


@dataclass(frozen=True)
class Score:
    """One protocol, or one left-out device of it.

    Attributes:
        protocol: which one.
        left_out: value that was left out, or how many there were.
        rows: rows that were predicted.
        mape: mean absolute percentage error.
        median_ape: median of the same.
        within_10: share of rows predicted within 10 %.
        coverage: share of rows inside their 90 % interval; None where too few rows calibrate one.
    """

    protocol: str
    left_out: str
    rows: int
    mape: float
    median_ape: float
    within_10: float
    coverage: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores in the order they should be read, and what to beware of.

    Attributes:
        quantity: what was predicted.
        scores: protocols that leave something out first, random splits last.
        warnings: a leak between random and honest splits, protocols the data cannot answer.
    """

    quantity: str
    scores: tuple[Score, ...]
    warnings: tuple[str, ...]

    def __getitem__(self, protocol: str) -> Score:
        """The score of a whole protocol."""
        return next(s for s in self.scores if s.protocol == protocol)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"quantity": self.quantity, "scores": [asdict(s) for s in self.scores], "warnings": list(self.warnings)}

    def __str__(self) -> str:
        lines = [f"{'protocol':18}{'left out':>16}{'rows':>8}{'MAPE %':>10}{'median %':>10}{'<10 %':>8}"]
        for s in self.scores:
            lines.append(
                f"{s.protocol:18}{s.left_out:>16}{s.rows:>8}{s.mape:>10.1f}{s.median_ape:>10.1f}{s.within_10:>8.2f}"
            )
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def evaluate(
    model: KernelPredictor, samples: Samples, protocol: str | Sequence[str] | None = None, seed: int = 0
) -> Evaluation:
    """Train and test a predictor under protocols that say what it may have seen.

    The default leaves out whole kernels, applications, devices and shapes, as far as the data has several, and then
    rows at random, which flatters: the same kernel with another input is in training. A random split never comes
    alone, and is marked as a leak when it is more than three times better than the most honest one.

    Args:
        model: its settings are used, never what it has learned.
        samples: of `KernelDB.samples`.
        protocol: one or more of ``"leave-kernel-out"``, ``"leave-app-out"``, ``"leave-device-out"``,
            ``"leave-shape-out"``, ``"leave-sample-out"`` and ``"mangrove"`` (the paper's: random threefold
            splits, repeated, stratified by time, its five longest kernels always in training).
        seed: of random splits.

    Raises:
        ConfigError: unknown protocol, or one that the data cannot answer.
    """
    data = samples.measured(model.quantity)
    asked = [protocol] if isinstance(protocol, str) else protocol
    for name in asked or ():
        if name not in PROTOCOLS:
            raise ConfigError(f"no protocol {name!r}; {did_you_mean(name, PROTOCOLS)}")
    possible = [n for n, label in PROTOCOLS.items() if label is not None and len(np.unique(data.labels[label])) > 1]
    chosen = list(asked) if asked else [*possible, "leave-sample-out"]
    if all(PROTOCOLS[name] is None for name in chosen):
        chosen += possible[:1]
    scores: list[Score] = []
    for name in (n for n in PROTOCOLS if n in chosen):
        scores += _scored(model, data, name, seed)
    missing = [n for n in PROTOCOLS if PROTOCOLS[n] is not None and n not in possible]
    return Evaluation(model.quantity, tuple(scores), tuple(_warnings(scores, missing)))


def _warnings(scores: Sequence[Score], missing: Sequence[str]) -> Iterator[str]:
    whole = {s.protocol: s for s in reversed(scores)}  # the first of a protocol is the whole of it
    honest = [whole[n] for n in PROTOCOLS if n in whole and PROTOCOLS[n] is not None]
    for name, score in whole.items():
        if PROTOCOLS[name] is not None:
            continue
        if not honest:
            yield f"{name} has nothing honest beside it: all rows are of one kernel, application, device and shape"
        for other in honest:
            if other.mape > LEAK * score.mape:
                yield (
                    f"leak: {name} is {other.mape / score.mape:.1f} times better than {other.protocol}; "
                    "rows of one group are in training and test, its error is not that of unknown kernels"
                )
                break
    if missing:
        yield f"not answered, the data has only one group: {', '.join(missing)}"


def _scored(model: KernelPredictor, data: Samples, protocol: str, seed: int) -> Iterator[Score]:
    label = PROTOCOLS[protocol]
    if label is not None and len(np.unique(data.labels[label])) < 2:
        only = data.labels[label][0]
        raise ConfigError(f"{protocol}: all {len(data)} launches have one {label} ({only}); there is none to leave out")
    y, parts = data.y(model.quantity), []
    groups = None if label is None else data.labels[label]
    for name, train, test in _splits(data, protocol, groups, seed):
        fresh = KernelPredictor(**model.get_params())
        fresh.fit(data.X[train], y[train], None if groups is None else groups[train], columns=data.columns)
        parts.append((name, *_errors(fresh, data.X[test], y[test])))
    errors = np.concatenate([p[1] for p in parts])
    covered = [p[2] for p in parts if p[2] is not None]
    groups_left = "rows" if groups is None else f"{len(np.unique(groups))} {label}s"
    yield _score(protocol, groups_left, errors, np.concatenate(covered) if covered else None)
    if protocol == "leave-device-out":
        yield from (_score(protocol, name, error, inside) for name, error, inside in parts if name)


def _errors(model: KernelPredictor, x: FloatArray, y: FloatArray) -> tuple[FloatArray, NDArray[np.bool_] | None]:
    value = model.predict(x)
    try:
        _, lo, hi = model.predict(x, interval=0.9)
        inside = (lo <= y) & (y <= hi)
    except ConfigError:  # too few rows to calibrate
        inside = None
    return np.abs(value - y) / y, inside


def _score(protocol: str, left_out: str, errors: FloatArray, inside: NDArray[np.bool_] | None) -> Score:
    return Score(
        protocol, left_out, len(errors), 100 * float(errors.mean()), 100 * float(np.median(errors)),
        float((errors < 0.1).mean()), None if inside is None else float(inside.mean()),
    )  # fmt: skip


def _splits(data: Samples, protocol: str, groups: Any, seed: int) -> Iterator[_Split]:
    from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut

    rows = np.zeros((len(data), 1))
    if protocol == "mangrove":
        yield from _mangrove(data, seed)
    elif groups is None:
        split = KFold(min(10, len(data)), shuffle=True, random_state=seed).split(rows)
        yield from (("", train, test) for train, test in split)
    elif (n := len(np.unique(groups))) <= _ONE_BY_ONE:
        for train, test in LeaveOneGroupOut().split(rows, groups=groups):
            yield str(groups[test[0]]), train, test
    else:
        split = GroupKFold(min(_MOST_FOLDS, n), shuffle=True, random_state=seed).split(rows, groups=groups)
        yield from (("", train, test) for train, test in split)


def _mangrove(data: Samples, seed: int) -> Iterator[_Split]:
    from sklearn.model_selection import StratifiedKFold

    time = data.time_s
    longest = np.argsort(time)[-_LARGEST:]
    others = np.setdiff1d(np.arange(len(data)), longest)
    if len(others) < 3:
        raise ConfigError(f"mangrove: {len(data)} launches are too few for three folds; give 8 or more")
    strata = np.digitize(time[others], _STRATA_S)
    sizes = np.bincount(strata)
    strata = np.where(sizes[strata] < 3, np.argmax(sizes), strata)  # a stratum must reach every fold
    for repeat in range(_REPEATS):
        folds = StratifiedKFold(3, shuffle=True, random_state=seed + repeat).split(others, strata)
        for train, test in folds:
            yield "", np.concatenate([others[train], longest]), others[test]
