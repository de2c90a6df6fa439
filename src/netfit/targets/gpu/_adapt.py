"""Corrections from a few probe kernels of a new device, kept only when cross-validation says that they help."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Correction", "correct"]

FloatArray = NDArray[np.float64]

ALPHAS = (1.0, 3.0, 10.0, 30.0)
FEWEST = 3  # probes
CHANCE = 1.5  # standard errors by which a correction must be better than a simpler one


@dataclass(frozen=True)
class Correction:
    """What is added to the logarithm of a prediction.

    Attributes:
        kind: ``"zero-shot"`` (nothing), ``"offset"`` or ``"ridge"``.
        mean: of each basis column over the probes.
        scale: deviation of each basis column.
        low: smallest value of each standardised column among the probes; beyond, the correction stays as it is.
        high: largest value.
        coef: weight of each standardised column.
        intercept: added to all.
        probes: how many there were.
        errors: mean absolute error of the logarithm by leave-one-out, for each kind that was tried.
        spread: how much wider than calibrated the intervals must be.
    """

    kind: str = "zero-shot"
    mean: Sequence[float] = ()
    scale: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    coef: Sequence[float] = ()
    intercept: float = 0.0
    probes: int = 0
    errors: tuple[tuple[str, float], ...] = ()
    spread: float = 1.0

    def __call__(self, basis: FloatArray) -> FloatArray:
        """The correction of each row of ``basis``, shape ``(rows, columns)``."""
        if self.kind != "ridge":
            return np.full(len(basis), self.intercept)
        z = (basis - np.asarray(self.mean)) / np.asarray(self.scale)
        return self.intercept + np.clip(z, self.low, self.high) @ np.asarray(self.coef)


def correct(basis: FloatArray, residual: FloatArray, usual: float | None) -> Correction:
    """The correction that leave-one-out prefers, unless its gain is within the noise of the probes.

    Args:
        basis: rows of the probes.
        residual: logarithm of measured over predicted.
        usual: 90th percentile of the absolute residuals that the intervals were calibrated on; None without any.
    """
    n = len(residual)
    mean, scale = basis.mean(0), np.maximum(basis.std(0), 1e-9)
    z = (basis - mean) / scale
    left = {"zero-shot": residual, "offset": (residual - residual.mean()) * n / (n - 1)}
    ridges = {alpha: _ridge(z, residual, alpha) for alpha in ALPHAS}
    best = min(ALPHAS, key=lambda alpha: np.abs(ridges[alpha][1]).mean())
    left["ridge"] = ridges[best][1]
    errors = {kind: np.abs(out) for kind, out in left.items()}
    chosen = "zero-shot"
    for kind in ("offset", "ridge"):  # the simpler one first: the next must beat it by more than chance
        gain = errors[chosen] - errors[kind]
        usual_gain = np.clip(gain, *np.quantile(gain, (0.1, 0.9)))  # one odd probe must not decide
        if gain.mean() > 0 and usual_gain.mean() > CHANCE * usual_gain.std(ddof=1) / np.sqrt(n):
            chosen = kind
    widest = float(np.quantile(errors[chosen], 0.9)) if n >= 10 else float(errors[chosen].max())
    return Correction(
        chosen, mean.tolist(), scale.tolist(), z.min(0).tolist(), z.max(0).tolist(),
        ridges[best][0].tolist() if chosen == "ridge" else (),
        float(residual.mean()) if chosen != "zero-shot" else 0.0,
        n, tuple((kind, float(e.mean())) for kind, e in errors.items()),
        max(1.0, widest / usual) if usual else 1.0,
    )  # fmt: skip


def _ridge(z: FloatArray, y: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Weights of centred columns, and the residual of every row when it is left out (closed form)."""
    inverse = np.linalg.inv(z.T @ z + alpha * np.eye(z.shape[1]))
    coef = inverse @ z.T @ (y - y.mean())
    hat = np.einsum("ij,jk,ik->i", z, inverse, z) + 1 / len(y)
    return coef, (y - y.mean() - z @ coef) / np.maximum(1e-6, 1 - hat)
