"""Trees as an ONNX file: grown with scikit-learn, run with ONNX Runtime alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, require

__all__ = ["Forest", "boost", "grow", "importances", "run", "to_onnx"]

_BOOST_RATE, _IMPORTANCE_ROWS = 0.06, 500
# float32 rows to one number each
Forest = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def grow(
    x: NDArray[np.float32], z: NDArray[np.float64], trees: int, max_features: float | None, leaf: int, seed: int
) -> Any:
    """A fitted ``ExtraTreesRegressor``."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(trees, max_features=max_features, min_samples_leaf=leaf, random_state=seed)
    return forest.fit(x, z)


def boost(x: NDArray[np.float32], z: NDArray[np.float64], trees: int, leaf: int, seed: int) -> Any:
    """A fitted ``HistGradientBoostingRegressor`` of the absolute error.

    What a board draws has outliers that a mean follows and a median does not.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        loss="absolute_error", learning_rate=_BOOST_RATE, max_iter=trees, min_samples_leaf=leaf, random_state=seed
    )
    return model.fit(x, z)


def importances(forest: Any, x: NDArray[np.float32], z: NDArray[np.float64], seed: int) -> tuple[float, ...]:
    """How much each feature matters to trained trees."""
    found = getattr(forest, "feature_importances_", None)
    if found is None:
        from sklearn.inspection import permutation_importance

        some = np.random.default_rng(seed).permutation(len(x))[:_IMPORTANCE_ROWS]
        found = permutation_importance(forest, x[some], z[some], n_repeats=1, random_state=seed).importances_mean
    return tuple(map(float, found))


def to_onnx(forest: Any, columns: int) -> bytes:
    """The forest as ONNX; its thresholds are float32, like the features a forest of scikit-learn compares."""
    skl2onnx: Any = require("skl2onnx", "gpu")
    types: Any = require("skl2onnx.common.data_types", "gpu")
    # A fixed operator set: two versions of the converter write the same file.
    model = skl2onnx.to_onnx(
        forest,
        initial_types=[("x", types.FloatTensorType([None, columns]))],
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    return bytes(model.SerializeToString())


def run(onnx: bytes, columns: int) -> Forest:
    """The forest of an ONNX file, one thread.

    Raises:
        ArtifactError: it is no model, or takes other features.
    """
    runtime: Any = require("onnxruntime", "gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # the runtime's own errors share no base class
        raise ArtifactError(f"model.onnx cannot be opened: {str(e).splitlines()[0]}") from e
    inputs, outputs = session.get_inputs(), [out.name for out in session.get_outputs()]
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].shape[-1] != columns:
        raise ArtifactError(f"model.onnx takes {inputs[0].shape}, expected rows of {columns} features")
    name = inputs[0].name

    def forest(x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(session.run(outputs, {name: x})[0].ravel(), np.float64)

    return forest
