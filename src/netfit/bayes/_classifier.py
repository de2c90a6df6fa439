"""A Bayesian network as a scikit-learn estimator."""

from itertools import pairwise
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from netfit.errors import ConfigError
from netfit.surgery import Policy

from ._predict import predict
from ._uncertainty import Uncertainty
from .pfp import to_pfp
from .svi import Bayesian, fit_svi, to_bayesian

__all__ = ["SVIClassifier"]


class SVIClassifier(ClassifierMixin, BaseEstimator):
    """Fully connected network with Gaussian weights, trained by variational inference.

    Columns are brought to mean 0 and deviation 1 first. For networks of another form, `to_bayesian` and `fit_svi`.

    Args:
        hidden: units of each hidden layer.
        prior_std: standard deviation of the weights' prior.
        init_std: standard deviation that the weights begin with.
        epochs, lr, batch_size, kl_weight: as for `fit_svi`.
        method: predictions by ``"pfp"`` (one pass over means and variances) or ``"svi"`` (drawn networks).
        n_samples: networks drawn (svi), or logits (pfp, at least 100).
        random_state: seed of first weights, order and draws.

    Attributes:
        classes_: class labels.
        network_: the Bayesian network.
        n_features_in_: columns of `X`.

    Example:
        >>> x = np.linspace(-1, 1, 60)[:, None]
        >>> model = SVIClassifier(hidden=(8,), lr=0.02, random_state=0).fit(x, x[:, 0] > 0)
        >>> u = model.uncertainty([[0.0], [0.9]])  # total, aleatoric and epistemic, in nats
        >>> bool(u.total[0] > u.total[1])
        True
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (50,),
        prior_std: float = 1.0,
        init_std: float = 0.05,
        epochs: int = 50,
        lr: float = 1e-2,
        batch_size: int = 32,
        kl_weight: float = 0.1,
        method: Literal["pfp", "svi"] = "pfp",
        n_samples: int = 100,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.prior_std = prior_std
        self.init_std = init_std
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.kl_weight = kl_weight
        self.method = method
        self.n_samples = n_samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train the network.

        Args:
            X: numbers, (n, features).
            y: class labels, (n,).

        Raises:
            ConfigError: a setting cannot be used, or there is one class only.
            ValueError: scikit-learn's checks of `X` and `y`.
        """
        if any(not isinstance(n, Integral) or n < 1 for n in self.hidden):
            raise ConfigError(f"hidden={self.hidden!r}: give the units of each hidden layer, such as (50, 50)")
        if self.method not in ("pfp", "svi"):
            raise ConfigError(f"method={self.method!r}: choose 'pfp' or 'svi'")
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ConfigError(f"y holds one class only ({self.classes_[0]!r}): nothing to tell apart; give 2 and more")
        self._level, self._spread = X.mean(0), np.where(X.std(0) > 0, X.std(0), 1.0)
        self._seed = int(check_random_state(self.random_state).randint(2**31))
        x = self._scaled(X).float()
        network = to_bayesian(self._plain(), x[:2], policy=Policy({"*": Bayesian(self.prior_std, self.init_std)}))
        fit_svi(network, (x, torch.from_numpy(labels).long()), epochs=self.epochs, lr=self.lr, seed=self._seed,
                batch_size=self.batch_size, kl_weight=self.kl_weight)  # fmt: skip
        # In double precision an answer does not depend on the rest of its batch.
        self.network_ = network.double().eval()
        self._answering: Any = to_pfp(self.network_, self._scaled(X[:2])) if self.method == "pfp" else self.network_
        return self

    def uncertainty(self, X: Any) -> Uncertainty:
        """Probabilities and uncertainties of every sample, in the order of ``classes_``.

        Raises:
            ValueError: scikit-learn's checks of `X`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return predict(self._answering, self._scaled(X), method=self.method, n_samples=self.n_samples, seed=self._seed)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Mean probabilities of the classes, (n, classes)."""
        return np.asarray(self.uncertainty(X).probs.numpy())

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable class of each sample, (n,)."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])

    def _scaled(self, x: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((x - self._level) / self._spread)

    def _plain(self) -> nn.Module:
        sizes = [self.n_features_in_, *self.hidden, len(self.classes_)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(*layers[:-1]).eval()
