"""Forecasters as a temporal stage: settings here, torch only once one is trained or run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from netfit.detect._window_pca import TemporalRows
from netfit.errors import ConfigError
from netfit.streaming import Frames, State

if TYPE_CHECKING:
    from torch import nn

    from netfit.surgery import Policy

__all__ = ["Forecaster", "ForecasterModel"]

_BATCH = 256  # windows scored at once
_KINDS = ("informer", "tranad")


@dataclass(frozen=True)
class Forecaster:
    """A network that says what a row of the fleet should have been, trained by `HybridDetector.fit`.

    Rows are scaled to [0, 1] by their range in training. Groups that come later are not looked at until the next fit.

    Args:
        kind: ``"tranad"`` or ``"informer"``.
        window: rows, the last of which is judged.
        epochs: passes over the training rows.
        batch_size: windows a step.
        lr: learning rate of Adam.
        mu: None, or the weight of the semi-supervised loss (`SemiSupervisedMSE`), which `fit` then wants labels for.
        sizes: further arguments of `TranAD` or `InformerForecaster`.

    Raises:
        ConfigError: a number is out of range.
    """

    kind: Literal["informer", "tranad"] = "tranad"
    window: int = 10
    epochs: int = 5
    batch_size: int = 128
    lr: float = 1e-3
    mu: float | None = None
    sizes: Mapping[str, int | float] = field(default_factory=dict)
    weights: Mapping[str, NDArray[Any]] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"kind={self.kind!r} of a forecaster: choose from {', '.join(_KINDS)}")
        if min(self.window - 1, self.epochs, self.batch_size) < 1 or not self.lr > 0:
            raise ConfigError(
                f"window={self.window}, epochs={self.epochs}, batch_size={self.batch_size}, lr={self.lr}: choose a "
                "window of 2 or more, 1 or more, and a positive rate"
            )
        if self.mu is not None and not self.mu > 0:
            raise ConfigError(f"mu={self.mu!r}: choose a positive weight, or None")

    def build(self, features: int) -> "nn.Module":
        """The untrained network for rows of this many features.

        Raises:
            ConfigError: `sizes` do not fit it.
        """
        from netfit.detect._informer import InformerForecaster
        from netfit.detect._tranad import TranAD

        kind = TranAD if self.kind == "tranad" else InformerForecaster
        try:
            return kind(features, self.window, **self.sizes)  # type: ignore[arg-type]
        except TypeError as e:
            raise ConfigError(f"sizes={dict(self.sizes)!r} of {self.kind}: {e}") from e

    def train(self, rows: NDArray[np.float64], labels: Any, seed: int) -> "Forecaster":
        """These settings with trained weights.

        Args:
            rows: what the temporal stage sees, (n, features).
            labels: 0 and 1 for each row, where `mu` is given.
            seed: of weights, order and dropout.

        Raises:
            ConfigError: too few rows, or labels are missing.
            JobError: the loss is not finite.
        """
        from netfit.detect._train import train

        return replace(self, weights=train(self, rows, labels, seed))

    def start(self, features: int) -> "ForecasterModel":
        """A model on its stream."""
        return ForecasterModel(self)


class ForecasterModel:
    """A trained forecaster on its stream; scores are NaN before it is trained.

    Args:
        config: settings, with weights.
    """

    def __init__(self, config: Forecaster) -> None:
        self._config = config
        self._weights = dict(config.weights or {})
        self._policy = ""  # of a compressed network, as TOML
        self._network: nn.Module | None = None
        self._frames: Frames | None = None

    @property
    def _features(self) -> int:
        return len(self._weights["low"]) if self._weights else 0

    def widen(self, features: int) -> None:
        """Features that are new at the end are left out until the next training."""

    def rows(self, values: NDArray[np.float64], present: NDArray[np.bool_]) -> TemporalRows:
        """Score the next rows."""
        n, known = len(values), self._features
        score, share, expected = np.full(n, np.nan), np.zeros(values.shape), np.full(values.shape, np.nan)
        if not known:
            return TemporalRows(score, share, expected)
        low, span = self._weights["low"], self._weights["span"]
        if self._frames is None:
            self._frames = Frames(self._config.window, 1, (known,), np.float32)
        windows = self._frames.push(np.clip((values[:, :known] - low) / span, -2, 3))
        if len(windows):
            error, forecast = self._score(windows)
            tail = slice(n - len(windows), n)
            share[tail, :known] = error * present[tail, :known]
            expected[tail, :known] = low + forecast * span
            score[tail] = share[tail].sum(1) / np.maximum(present[tail, :known].sum(1), 1)
        return TemporalRows(score, share, expected)

    def _score(self, windows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        import torch

        network: Any = self.network()
        errors, forecasts = [], []
        with torch.no_grad():
            for at in range(0, len(windows), _BATCH):
                error, forecast = network.error(torch.from_numpy(windows[at : at + _BATCH]))
                errors.append(error.numpy())
                forecasts.append(forecast.numpy())
        return np.concatenate(errors).astype(np.float64), np.concatenate(forecasts).astype(np.float64)

    def network(self) -> "nn.Module":
        """The trained network, in evaluation mode."""
        if self._network is None:
            import torch

            self._network = self._config.build(self._features).eval()
            if self._policy:
                from netfit.surgery import Policy, apply

                shape = 1, self._config.window, self._features
                self._network = apply(self._network, Policy.from_toml(self._policy), torch.zeros(shape)).eval()
            weights = {k: torch.from_numpy(v) for k, v in self._weights.items() if k not in ("low", "span")}
            self._network.load_state_dict(weights)
        return self._network

    def compress(self, policy: "Policy", rows: NDArray[np.float64]) -> None:
        """Score with the trained network under a policy.

        Args:
            policy: over its call sites.
            rows: to calibrate on, (n, features), as in training.

        Raises:
            ConfigError: nothing is trained, there are fewer rows than a window, or the policy does not fit.
        """
        import torch

        from netfit.surgery import apply, calibrate

        size = self._config.window
        if not self._features or len(rows) < size:
            raise ConfigError(f"{len(rows)} rows, {self._features} features known: fit first, and give {size} or more")
        scaled = (rows - self._weights["low"]) / self._weights["span"]
        windows = torch.from_numpy(scaled.astype(np.float32)).unfold(0, size, 1).transpose(1, 2)
        small = apply(self.network(), policy, windows[:8])
        calibrate(small, windows.split(_BATCH))
        self._network, self._policy = small.eval(), policy.to_toml()
        trained = {name: tensor.numpy().copy() for name, tensor in small.state_dict().items()}
        self._weights = {**trained, "low": self._weights["low"], "span": self._weights["span"]}

    def state(self) -> State:
        """What a restart needs."""
        frames = self._frames.state() if self._frames else {}
        weights = {str(i): {"name": k, "value": v.copy()} for i, (k, v) in enumerate(self._weights.items())}
        return {"weights": weights, "policy": self._policy, "frames": frames}

    def restore(self, state: State) -> None:
        """Go on where `state` was taken."""
        self._weights = {part["name"]: part["value"] for part in state["weights"].values()}
        self._network, self._frames, self._policy = None, None, state["policy"]
        if state["frames"]:
            self._frames = Frames(self._config.window, 1, (self._features,), np.float32)
            self._frames.restore(state["frames"])
