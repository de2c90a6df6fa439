"""The estimator."""

from numbers import Real
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from netfit import io
from netfit.bayes.tan._discretize import intervals, mdl_cuts, quantile_cuts
from netfit.bayes.tan._export import c_source
from netfit.bayes.tan._structure import candidates, chow_liu
from netfit.bayes.tan._tables import Layout, layout, log_joint
from netfit.bayes.tan._train import Loss, Schedule, learn_structure, learn_tables, quantized
from netfit.errors import ConfigError, did_you_mean

__all__ = ["TANClassifier"]

_STRUCTURES = ("naive", "chow-liu", "learned")
_LOSSES = ("nll", "hybrid")
_UNKNOWN = ("error", "uniform")
_MOST_VALUES = 2**16
_SEARCH = 0.6  # share of the epochs that a learned structure is looked for; the rest trains its tables


class TANClassifier(ClassifierMixin, BaseEstimator):
    """Tree-augmented naive Bayes classifier: each feature depends on the class and on at most one other feature.

    "On Resource-Efficient Bayesian Network Classifiers and Deep Neural Networks" (Roth, Schindler, Fröning, Pernkopf,
    2020). With `bits`, a prediction is a sum of small integers looked up in tables (`netfit.bayes.tan.c_source`).

    A column of whole numbers holds categories, any other column numbers that are cut into intervals first. NaN is a
    value of its own where it was seen in training.

    Args:
        structure: ``"naive"`` (no parents), ``"chow-liu"`` (the tree of greatest conditional mutual information) or
            ``"learned"`` (by gradient, with `size_penalty`).
        max_parents_candidates: parents tried for a feature of a learned structure.
        size_penalty: price of a table entry in a learned structure, in nats of the mean loss.
        loss: ``"nll"`` (generative: counts, where nothing else needs a gradient) or ``"hybrid"`` (with a margin).
        lam: weight of the margin term of the hybrid loss.
        gamma: margin, in nats.
        eta: sharpness of the soft margin.
        bits: integer and fractional bits of a stored -log p, at most 8 together; None for floating point. Tables are
            trained as they will be stored unless `epochs` is 0.
        n_bins: ``"mdl"`` (`MDLDiscretizer`), a number of equally filled intervals, or None to refuse such columns.
        alpha: added to every count.
        epochs: passes over the samples, where a gradient is needed.
        batch_size: samples of one step.
        lr: first learning rate of Adam; it falls to a thousandth.
        handle_unknown: a value not seen in training is an ``"error"``, or ``"uniform"``: it says nothing.
        random_state: seed of order and choice.

    Attributes:
        classes_: class labels.
        parents_: parent of each feature, -1 for none.
        tables_: for each feature log p(x_i | x_parent, class), float64 (parent's values, values, classes).
        class_log_prior_: log p(class).
        n_parameters_: entries of all tables.
        categories_: values of each feature (numbers of intervals where it was cut), in the order of the tables.
        edges_: cuts of each feature, None where its values are categories.

    Example:
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 8)
        >>> TANClassifier(structure="chow-liu").fit(x, x[:, 0] ^ x[:, 1]).score(x, x[:, 0] ^ x[:, 1])
        1.0
    """

    def __init__(
        self,
        structure: Literal["naive", "chow-liu", "learned"] = "chow-liu",
        max_parents_candidates: int = 8,
        size_penalty: float = 0.0,
        loss: Literal["nll", "hybrid"] = "nll",
        lam: float = 100.0,
        gamma: float = 20.0,
        eta: float = 10.0,
        bits: tuple[int, int] | None = None,
        n_bins: int | Literal["mdl"] | None = "mdl",
        alpha: float = 1.0,
        epochs: int = 50,
        batch_size: int = 100,
        lr: float = 3e-2,
        handle_unknown: Literal["error", "uniform"] = "error",
        random_state: Any = None,
    ) -> None:
        self.structure = structure
        self.max_parents_candidates = max_parents_candidates
        self.size_penalty = size_penalty
        self.loss = loss
        self.lam = lam
        self.gamma = gamma
        self.eta = eta
        self.bits = bits
        self.n_bins = n_bins
        self.alpha = alpha
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.handle_unknown = handle_unknown
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Learn structure and tables.

        Args:
            X: categories or numbers, (n, features); NaN where a value is missing.
            y: class labels, (n,).

        Raises:
            ConfigError: a setting is out of range, one class only, a feature with more than 65,536 values, or a
                column of fractions with ``n_bins=None``.
            ValueError: scikit-learn's checks of `X` and `y`.
        """
        self._check_settings()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ConfigError(f"y holds one class only ({self.classes_[0]!r}): nothing to tell apart; give 2 and more")
        codes = self._learn_values(X, labels)
        sizes = np.array([len(c) for c in self.categories_])
        schedule = self._schedule()
        parents = self._choose(codes, labels, sizes, schedule)
        self._learn_tables(layout(sizes, [(p,) for p in parents]), codes, labels, schedule)
        self.parents_ = np.array(parents)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class of each sample, (n,)."""
        joint = self._joint(X)
        return np.asarray(self.classes_[joint.argmax(axis=1)])

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Log-probabilities of the classes in nats, (n, classes)."""
        joint = torch.from_numpy(self._joint(X))
        return np.asarray(joint.log_softmax(1).numpy())

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes, (n, classes)."""
        return np.exp(self.predict_log_proba(X))

    def encode(self, X: Any) -> NDArray[np.int64]:
        """Value number of each entry as the tables and the C code count them, (n, features); -1 where unknown.

        Raises:
            ConfigError: a value was not seen in training and ``handle_unknown`` is ``"error"``.
            ValueError: another number of features, or infinite values.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        codes = np.empty(X.shape, np.int64)
        for i, (column, edges, known) in enumerate(zip(X.T, self.edges_, self.categories_, strict=True)):
            values = column if edges is None else intervals(column, edges).astype(np.float64)
            codes[:, i] = _positions(values, known)
            if self.handle_unknown == "error" and (codes[:, i] < 0).any():
                first = int(np.flatnonzero(codes[:, i] < 0)[0])
                raise ConfigError(
                    f"value {column[first]:g} of feature {i} in row {first} was not seen in training; "
                    "use handle_unknown='uniform' to ignore such values"
                )
        return codes

    def export_c(self, path: str | Path, name: str = "tan", packed: bool = False) -> None:
        """Write the classifier as one C file (`netfit.bayes.tan.c_source`).

        Raises:
            ConfigError: the tables are not quantized, or `name` is no C identifier.
            ArtifactError: the file cannot be written.
        """
        check_is_fitted(self)
        io.write_bytes(path, c_source(self, name, packed).encode())

    def __sklearn_tags__(self) -> Any:
        """Takes categories and missing values."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    def _joint(self, X: Any) -> NDArray[np.float64]:
        """log p(class, x), (n, classes)."""
        codes = self.encode(X)
        sizes = np.array([len(c) for c in self.categories_])
        plan = layout(sizes, [(int(p),) for p in self.parents_])
        table = np.concatenate([t.reshape(-1, len(self.classes_)) for t in self.tables_])
        found = log_joint(plan.places(codes), torch.from_numpy(table), torch.from_numpy(self.class_log_prior_))
        return np.asarray(found.numpy())

    def _learn_values(self, X: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decide what each column holds, and number its values."""
        self.edges_: list[NDArray[np.float64] | None] = []
        self.categories_: list[NDArray[np.float64]] = []
        codes = np.empty(X.shape, np.int64)
        for i, column in enumerate(X.T):
            edges = self._cuts(i, column, labels)
            values = column if edges is None else intervals(column, edges).astype(np.float64)
            known = np.unique(values)
            if len(known) > _MOST_VALUES:
                raise ConfigError(
                    f"feature {i} has {len(known)} values: allowed are {_MOST_VALUES}; use MDLDiscretizer first"
                )
            self.edges_.append(edges)
            self.categories_.append(known)
            codes[:, i] = _positions(values, known)
        return codes

    def _cuts(self, i: int, column: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
        known = column[~np.isnan(column)]
        if (known == np.floor(known)).all():
            return None
        if self.n_bins is None:
            raise ConfigError(
                f"feature {i} holds fractions such as {known[known != np.floor(known)][0]:g}: "
                "cut it with MDLDiscretizer, or set n_bins"
            )
        return mdl_cuts(column, labels) if self.n_bins == "mdl" else quantile_cuts(column, self.n_bins)

    def _choose(
        self, codes: NDArray[np.int64], labels: NDArray[np.int64], sizes: NDArray[np.int64], schedule: Schedule
    ) -> list[int]:
        if self.structure == "naive":
            return [-1] * len(sizes)
        if self.structure == "chow-liu":
            return [int(p) for p in chow_liu(codes, labels, sizes)[0]]
        choices = candidates(codes, labels, sizes, self.max_parents_candidates)
        search = Schedule(max(round(_SEARCH * self.epochs), 1), schedule.batch_size, schedule.lr, schedule.seed)
        return learn_structure(
            codes, labels, sizes, choices, self.alpha, self._loss(), search, self.bits, self.size_penalty
        )

    def _learn_tables(
        self, plan: Layout, codes: NDArray[np.int64], labels: NDArray[np.int64], schedule: Schedule
    ) -> None:
        classes = len(self.classes_)
        prior = np.log(np.bincount(labels) / len(labels))
        table = plan.smoothed(plan.counts(codes, labels, classes), self.alpha)
        if schedule.epochs and (self.loss == "hybrid" or self.bits is not None):
            placed, y = plan.places(codes), torch.from_numpy(labels)
            table, prior = learn_tables(placed, y, plan.groups, table, prior, self._loss(), schedule, self.bits)
        table, prior = (_rounded(t, self.bits) for t in (table, prior))
        self.class_log_prior_ = prior
        self.n_parameters_ = table.size
        shape = [(1 if p < 0 else plan.sizes[p], plan.sizes[i], classes) for i, p in enumerate(plan.parent)]
        parts = np.split(table, plan.first[1:-1])
        self.tables_ = [part.reshape(size) for part, size in zip(parts, shape, strict=True)]

    def _schedule(self) -> Schedule:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rest = 1 - _SEARCH if self.structure == "learned" else 1.0
        return Schedule(max(round(rest * self.epochs), min(self.epochs, 1)), self.batch_size, self.lr, seed)

    def _loss(self) -> Loss:
        return Loss(self.lam if self.loss == "hybrid" else 0.0, self.gamma, self.eta)

    def _check_settings(self) -> None:
        for name, allowed in (("structure", _STRUCTURES), ("loss", _LOSSES), ("handle_unknown", _UNKNOWN)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}; {did_you_mean(str(getattr(self, name)), allowed)}")
        least = {"size_penalty": 0, "lam": 0, "alpha": 0, "epochs": 0, "max_parents_candidates": 1, "batch_size": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not (isinstance(value, Real) and float(value) >= low):
                raise ConfigError(f"{name}={value!r}: choose a number of at least {low}")
        if not (self.n_bins in ("mdl", None) or isinstance(self.n_bins, int | np.integer)):
            raise ConfigError(f"n_bins={self.n_bins!r}: choose 'mdl', a number of intervals, or None")
        if self.bits is not None and not (len(self.bits) == 2 and 1 <= sum(self.bits) <= 8):
            raise ConfigError(f"bits={self.bits!r}: choose (integer bits, fractional bits), 1 to 8 together")


def _positions(values: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of each value among the sorted known ones (NaN sorts last and equals itself); -1 where it is none."""
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    same = (known[place] == values) | (np.isnan(known[place]) & np.isnan(values))
    return np.where(same, place, -1)


def _rounded(log_p: NDArray[np.float64], bits: tuple[int, int] | None) -> NDArray[np.float64]:
    return quantized(torch.from_numpy(log_p), bits).numpy()
