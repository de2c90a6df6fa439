"""`KernelPredictor`: trees on the logarithm of how far a kernel stays from its bound."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netfit.errors import ArtifactError, ConfigError, did_you_mean
from netfit.io import read_artifact, write_artifact

from ._adapt import FEWEST, Correction, correct
from ._features import ASIDE, COLUMNS
from ._forest import Forest, boost, grow, importances, run, to_onnx
from ._interval import Calibration, calibrate, folds

__all__ = ["Interval", "KernelPredictor"]

FloatArray = NDArray[np.float64]
FORMAT = 2
_QUANTITIES = ("time", "power", "energy")
# What is divided out before the forest sees a quantity: the sum of these columns, all of them logarithms.
_BASES: dict[str, dict[str, tuple[str, ...]]] = {
    "roofline": {"time": ("log_bound",), "power": ("log_tdp_w",), "energy": ("log_bound", "log_tdp_w")},
    "instructions": {"time": ("log_instructions",), "power": (), "energy": ("log_instructions",)},
    "none": {"time": (), "power": (), "energy": ()},
}
_BASIS = ("balance", "log_bound")  # columns a correction may depend on, beside the forest's own output
_CALIBRATION_TREES = 48


class Interval(NamedTuple):
    """Predictions with the ends of their intervals, one number each per row."""

    value: FloatArray
    lo: FloatArray
    hi: FloatArray


@dataclass(frozen=True)
class Fitted:
    """What training leaves behind, all of it plain numbers beside the forest."""

    forest: Forest
    columns: tuple[str, ...]
    typical: tuple[float, ...]
    importances: tuple[float, ...]
    kinds: tuple[str, ...]
    rows: int
    calibration: Calibration | None
    correction: Correction
    sklearn: Any = None  # the forest as it was grown; None in one that was loaded
    onnx: bytes | None = None


class KernelPredictor:
    """Predicts time, power or energy of kernels from what they compute, or from the instructions they execute.

    What is learned is the logarithm of measured over base, so that predictions stay near a physical bound where no
    kernel was measured. It is a scikit-learn regressor in all but its base class: ``clone`` and ``cross_val_score``
    take it, and one that was loaded runs without scikit-learn.

    Source: "A Simple Model for Portable and Fast Prediction of Execution Time and Power Consumption of GPU Kernels"
    (2021), whose features are ``"ptx"``; base, corrections and intervals are netfit's.

    Args:
        quantity: ``"time"`` (seconds), ``"power"`` (watts) or ``"energy"`` (joules).
        features: ``"op"``, ``"ptx"`` or ``"settings"``; see `KernelDB.samples`.
        base: ``"roofline"`` (time at 0.8 of the peaks and a launch; board power), ``"instructions"`` (executed
            ones) or ``"none"``.
        n_estimators: trees. Those of power are boosted on the absolute error, the others are a forest.
        max_features: share of the features that a split of a forest chooses from; None takes all.
        min_samples_leaf: fewest rows of a leaf.
        random_state: seed.

    Raises:
        ConfigError: a setting has a value that is not allowed.
    """

    def __init__(
        self,
        quantity: str = "time",
        features: str = "op",
        base: str = "roofline",
        n_estimators: int = 256,
        max_features: float | None = None,
        min_samples_leaf: int = 2,
        random_state: int = 0,
    ) -> None:
        self.quantity, self.features, self.base = quantity, features, base
        self.n_estimators, self.max_features = n_estimators, max_features
        self.min_samples_leaf, self.random_state = min_samples_leaf, random_state
        self._fitted: Fitted | None = None
        self._check()

    def _check(self) -> None:
        known = {"quantity": _QUANTITIES, "features": (*COLUMNS, "settings"), "base": tuple(_BASES)}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), allowed)}"
                )
        for name in ("n_estimators", "min_samples_leaf"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; allowed are whole numbers from 1")
        for column in _BASES[self.base][self.quantity]:
            if column not in COLUMNS.get(self.features, ()):
                raise ConfigError(f"base {self.base!r} needs {column}, which features={self.features!r} does not have")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings by name, as scikit-learn asks for them."""
        names = ("quantity", "features", "base", "n_estimators", "max_features", "min_samples_leaf", "random_state")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Change settings; what was fitted is forgotten."""
        self.__init__(**self.get_params() | params)  # type: ignore[misc]
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools want to know of an estimator."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        return Tags("regressor", TargetTags(required=True), regressor_tags=RegressorTags(), input_tags=InputTags())

    def __repr__(self) -> str:
        state = "not fitted" if self._fitted is None else f"{self._fitted.rows} rows, {self._fitted.correction.kind}"
        return f"KernelPredictor({self.quantity!r}, {self.features!r}, base={self.base!r}: {state})"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Operator kinds it was trained on."""
        return self._ready().kinds

    @property
    def correction(self) -> Correction:
        """What `adapt` found."""
        return self._ready().correction

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, kinds: Sequence[str] = (),
        columns: Sequence[str] | None = None,
        intervals: bool = True,
    ) -> Self:  # fmt: skip
        """Grow the forest, and calibrate intervals on held-out rows.

        Args:
            X: feature rows as `KernelDB.samples` gives them, shape ``(rows, columns)``.
            y: measured seconds, watts or joules, above 0.
            groups: rows of one group are held out together, so that intervals tell how sure a prediction of an
                unknown group is: labels of shapes, kernels or devices.
            kinds: operator kinds among the rows, for `GPU`.
            columns: names of the columns; needed for ``"settings"`` only.
            intervals: False saves the five small forests that intervals are calibrated with, most of the time.

        Raises:
            ConfigError: fewer than two rows, a size that does not fit, or a value that is not above 0.
        """
        x = np.asarray(X, np.float64)
        names = tuple(columns or COLUMNS.get(self.features) or map(str, range(x.shape[-1])))
        self._fitted = None
        x, target = self._checked(x, names), np.asarray(y, np.float64)
        if target.shape != (len(x),) or len(x) < 2:
            raise ConfigError(f"{len(x)} rows with {target.size} values of {self.quantity}; give two or more, one each")
        if not (np.isfinite(target) & (target > 0)).all():
            bad = int(np.flatnonzero(~(np.isfinite(target) & (target > 0)))[0])
            raise ConfigError(f"{self.quantity} of row {bad} is {target[bad]}; allowed are numbers above 0")
        z, shown = np.log(target) - self._base(x, names), self._shown(x, names)
        forest = self._grow(shown, z, self.n_estimators)
        self._fitted = Fitted(
            lambda rows: np.asarray(forest.predict(rows), np.float64),
            names,
            tuple(np.median(x, axis=0).tolist()),
            importances(forest, shown, z, self.random_state),
            tuple(kinds),
            len(x),
            self._calibration(x, names, shown, z, groups) if intervals else None,
            Correction(),
            sklearn=forest,
        )
        return self

    def _grow(self, shown: NDArray[np.float32], z: FloatArray, trees: int) -> Any:
        if self.quantity == "power":
            return boost(shown, z, trees, self.min_samples_leaf, self.random_state)
        return grow(shown, z, trees, self.max_features, self.min_samples_leaf, self.random_state)

    def _calibration(
        self, x: FloatArray, names: Sequence[str], shown: NDArray[np.float32], z: FloatArray, groups: Any
    ) -> Calibration | None:
        if len(z) < 20:
            return None
        left, trees = np.empty_like(z), min(_CALIBRATION_TREES, self.n_estimators)
        for train, held in folds(len(z), groups, self.random_state):
            left[held] = z[held] - self._grow(shown[train], z[train], trees).predict(shown[held])
        return calibrate(self._key(x, names), left)

    @overload
    def predict(self, X: ArrayLike, interval: None = None) -> FloatArray: ...
    @overload
    def predict(self, X: ArrayLike, interval: float) -> Interval: ...
    def predict(self, X: ArrayLike, interval: float | None = None) -> FloatArray | Interval:
        """Seconds, watts or joules of each row.

        Args:
            X: feature rows, shape ``(rows, columns)``.
            interval: share of kernels whose measurement lies between the ends, such as 0.9.

        Raises:
            ConfigError: not fitted, another number of columns, or no rows held out to tell intervals from.
        """
        fitted = self._ready()
        x = self._checked(np.asarray(X, np.float64), fitted.columns)
        base = self._base(x, fitted.columns)
        z = self._learned(x, fitted)
        if interval is None:
            return np.exp(z + base)
        if not 0 < interval < 1:
            raise ConfigError(f"interval = {interval}; allowed are shares between 0 and 1")
        if fitted.calibration is None:
            raise ConfigError(
                f"no intervals: they need 20 rows or more and fit(intervals=True); this one has {fitted.rows}"
            )
        lo, hi = fitted.calibration(self._key(x, fitted.columns), interval)
        spread = fitted.correction.spread
        value = z + base
        return Interval(
            np.exp(value), np.exp(value + spread * np.minimum(lo, 0)), np.exp(value + spread * np.maximum(hi, 0))
        )

    def _learned(self, x: FloatArray, fitted: Fitted) -> FloatArray:
        z = fitted.forest(self._shown(x, fitted.columns))
        return z if fitted.correction.kind == "zero-shot" else z + fitted.correction(self._basis(x, z, fitted.columns))

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Coefficient of determination of the logarithms; 1 is perfect."""
        truth, found = np.log(np.asarray(y, np.float64)), np.log(self.predict(X))
        spread = float(((truth - truth.mean()) ** 2).sum())
        return 1.0 - float(((truth - found) ** 2).sum()) / spread if spread else 0.0

    def adapt(self, X_probe: ArrayLike, y_probe: ArrayLike) -> "KernelPredictor":
        """A predictor for a device of which only a few kernels were measured.

        A ridge on the forest's output, the compute to memory balance and the bound corrects it, or an offset; both
        only where leave-one-out says that they gain more than chance, else the prediction stays as it was.

        Args:
            X_probe: feature rows of the probes, 3 or more; 10 to 100 are usual.
            y_probe: what was measured.

        Raises:
            ConfigError: too few probes, or a value that is not above 0.
        """
        fitted = replace(self._ready(), correction=Correction())
        x, y = self._checked(np.asarray(X_probe, np.float64), fitted.columns), np.asarray(y_probe, np.float64)
        if len(x) < FEWEST or y.shape != (len(x),) or not (np.isfinite(y) & (y > 0)).all():
            raise ConfigError(f"{len(x)} probes with {y.size} values; give {FEWEST} or more, one value above 0 each")
        z = self._learned(x, fitted)
        residual = np.log(y) - self._base(x, fitted.columns) - z
        usual = None if fitted.calibration is None else fitted.calibration.usual
        adapted = KernelPredictor(**self.get_params())
        found = correct(self._basis(x, z, fitted.columns), residual, usual)
        adapted._fitted = replace(fitted, correction=found)
        return adapted

    def explain(self, X: ArrayLike) -> list[dict[str, Any]]:
        """Why each prediction is what it is.

        Returns:
            One dictionary per row: ``value``; ``base`` (what the physics alone says, in the same unit);
            ``factor`` between them; ``effects``, by how much each of the five strongest features raises (above 1) or
            lowers the prediction against its typical value in the training rows.
        """
        fitted = self._ready()
        x = self._checked(np.asarray(X, np.float64), fitted.columns)
        names, base, z = fitted.columns, self._base(x, fitted.columns), self._learned(x, fitted)
        shown = [i for i, name in enumerate(names) if name not in ASIDE]
        strongest = np.argsort(fitted.importances)[::-1][:5]
        effects: dict[str, FloatArray] = {}
        for i in strongest:
            other = x.copy()
            other[:, shown[i]] = fitted.typical[shown[i]]
            effects[names[shown[i]]] = np.exp(z - fitted.forest(self._shown(other, names)))
        return [
            {
                "value": float(np.exp(z[row] + base[row])), "base": float(np.exp(base[row])),
                "factor": float(np.exp(z[row])), "effects": {name: float(e[row]) for name, e in effects.items()},
            }
            for row in range(len(x))
        ]  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the predictor: the forest as ONNX, everything else as JSON, in one artifact folder.

        Raises:
            MissingExtraError: the converter is not installed.
            ArtifactError: the folder cannot be written.
        """
        fitted = self._ready()
        columns = sum(name not in ASIDE for name in fitted.columns)
        onnx = fitted.onnx if fitted.onnx is not None else to_onnx(fitted.sklearn, columns)
        meta = {"kind": "kernel-predictor", "format": FORMAT, "settings": self.get_params()} | {
            name: getattr(fitted, name) for name in ("columns", "typical", "importances", "kinds", "rows")
        }
        meta["calibration"] = None if fitted.calibration is None else asdict(fitted.calibration)
        write_artifact(path, meta | {"correction": asdict(fitted.correction)}, {}, {"model.onnx": onnx})

    @classmethod
    def load(cls, path: str | Path) -> "KernelPredictor":
        """Read what `save` wrote; scikit-learn is not needed.

        Raises:
            ArtifactError: it is no predictor, or damaged.
        """
        found = read_artifact(path)
        meta = found.meta
        try:
            if meta["kind"] != "kernel-predictor" or meta["format"] != FORMAT:
                raise ValueError(f"{meta['kind']} of format {meta['format']}")
            predictor = cls(**meta["settings"])
            columns = tuple(meta["columns"])
            shown = sum(name not in ASIDE for name in columns)
            given = meta["calibration"]
            calibration = given and Calibration(tuple(given["edges"]), tuple(map(tuple, given["quantiles"])))
            numbers = {name: tuple(meta[name]) for name in ("typical", "importances", "kinds")}
            correction = _correction(meta["correction"])
            onnx = found.files["model.onnx"]
            predictor._fitted = Fitted(
                run(onnx, shown), columns, rows=int(meta["rows"]), calibration=calibration, correction=correction,
                onnx=onnx, **numbers,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as e:
            raise ArtifactError(f"{path} holds no kernel predictor: {e}") from e
        return predictor

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise ConfigError("the predictor is not fitted; call fit(X, y) or load(path) first")
        return self._fitted

    def _checked(self, x: FloatArray, columns: Sequence[str]) -> FloatArray:
        if x.ndim != 2 or x.shape[1] != len(columns):
            raise ConfigError(f"X has shape {x.shape}; features={self.features!r} are rows of {len(columns)} columns")
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise ConfigError(f"X holds {x[row, column]} at row {row}, {columns[column]}; allowed are finite numbers")
        return x

    def _shown(self, x: FloatArray, columns: Sequence[str]) -> NDArray[np.float32]:
        keep = [i for i, name in enumerate(columns) if name not in ASIDE]
        return x[:, keep].astype(np.float32)

    def _base(self, x: FloatArray, columns: Sequence[str]) -> FloatArray:
        base = np.zeros(len(x))
        for name in _BASES[self.base][self.quantity]:
            base += x[:, columns.index(name)]
        return base

    def _key(self, x: FloatArray, columns: Sequence[str]) -> FloatArray:
        name = "log_bound" if "log_bound" in columns else columns[0]
        return x[:, columns.index(name)]

    def _basis(self, x: FloatArray, z: FloatArray, columns: Sequence[str]) -> FloatArray:
        return np.stack([z, *(x[:, columns.index(name)] for name in _BASIS if name in columns)], 1)


def _correction(given: Mapping[str, Any]) -> Correction:
    return Correction(**dict(given) | {"errors": tuple((str(kind), float(e)) for kind, e in given["errors"])})
