"""Recipes that make a network robust, each beside the baselines that keep its figures honest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from netfit.errors import ConfigError, did_you_mean
from netfit.runs import Run
from netfit.surgery import Policy, plain

from ._constant_scale import ConstantScale
from ._environment import Robustness, robustness
from ._noise import AdditiveGaussian, Gaussian
from ._trainer import Trainer
from .diagnostics import accuracies
from .schedules import Constant, HalfNormal, Schedule

__all__ = ["METHODS", "Hardening", "Method", "harden"]

Method = Literal["noisy", "vant", "qat_constant_scale"]
METHODS = get_args(Method)
PARTS = (0.05, 0.25, 0.5, 0.75, 1.0)  # of the nominal standard deviation: the levels that are judged
WARM_UP = 0.25  # part of the training in which the noise of VANT rises


@dataclass(frozen=True)
class Hardening:
    """What hardening achieved, beside its baselines.

    Attributes:
        method: which recipe.
        std: nominal standard deviation.
        mean_std: mean of the noise in training; 0 without noise. A lower mean alone explains much of a gain.
        levels: noise at which everything was judged.
        curves: accuracies at the levels: of the method, of ``"clean"`` training, and of training at each fixed level
            (``"fixed 0.5"``).
        oracle: at each level, accuracy of the network trained at it.
        best_fixed: name of the fixed level with the highest mean robustness.
        model: the hardened network, without noise.
        policy: what rounds in it; empty for noisy training.
    """

    method: str
    std: float
    mean_std: float
    levels: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]
    oracle: tuple[float, ...]
    best_fixed: str
    model: nn.Module
    policy: Policy

    @property
    def robustness(self) -> dict[str, Robustness]:
        """Robustness of every curve."""
        return {name: robustness(curve, self.oracle) for name, curve in self.curves.items()}

    @property
    def baselines(self) -> tuple[str, str, str]:
        """Clean training, the same nominal level, and the best fixed one."""
        return "clean", _fixed(self.std), self.best_fixed

    def to_dict(self) -> dict[str, Any]:
        """Everything but the network, as plain values."""
        return {
            "method": self.method, "std": self.std, "mean_std": self.mean_std, "levels": list(self.levels),
            "curves": {name: list(curve) for name, curve in self.curves.items()}, "oracle": list(self.oracle),
            "best_fixed": self.best_fixed, "baselines": list(self.baselines),
            "robustness": {name: asdict(r) for name, r in self.robustness.items()},
        }  # fmt: skip


def _fixed(std: float) -> str:
    return f"fixed {std:g}"


def harden(
    trainer: Trainer,
    data: tuple[Tensor, Tensor],
    std: float,
    *,
    method: Method = "vant",
    noise: Gaussian | None = None,
    alpha: float = 0.45,
    theta: float | None = None,
    scale: float = 4.0,
    bits: int = 8,
    levels: Sequence[float] | None = None,
    seed: int = 0,
    run: Run | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Hardening:
    """Train a network for noisy hardware, and the baselines that say what the method itself brought.

    Trains a clean network and one network at each fixed level too: they are the oracle of `robustness` and show what
    the best constant noise reaches. A gain over the same nominal level alone may be no more than a lower mean.

    Args:
        trainer: network, data and settings, the same for all.
        data: inputs and labels to judge on.
        std: nominal standard deviation of the noise, at every site.
        method: ``"noisy"`` trains at `std`; ``"vant"`` draws one level a sample around a part of it (`HalfNormal`)
            after a linear warm-up of a quarter of the steps; ``"qat_constant_scale"`` trains without noise but with
            a large constant quantization step.
        noise: its kind; additive when None.
        alpha: of VANT.
        theta: of VANT; 0.4 times `std` when None.
        scale: quantization step of ReLU outputs.
        bits: of weights and ReLU outputs under constant-scale training.
        levels: to judge at; 0.05, 0.25, 0.5, 0.75 and 1 times `std` when None. `std` is added when it is missing.
        seed: of weights, shuffling and noise.
        run: keeps every finished training; a killed job goes on.
        progress: called with the name of the training, its number and how many there are.

    Raises:
        ConfigError: unknown method, or a level that is not positive.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}; {did_you_mean(method, METHODS)}")
    kind = noise or AdditiveGaussian(std)
    grid = tuple(sorted({*(levels if levels is not None else [part * std for part in PARTS]), std}))
    if not grid[0] > 0:
        raise ConfigError(f"levels of noise must be positive, not {grid[0]}")
    vant = HalfNormal(std, alpha, 0.4 * std if theta is None else theta, warmup=int(WARM_UP * trainer.steps))
    own = {"vant": (Policy({"*": kind}), vant), "qat_constant_scale": (Policy({"*": ConstantScale(scale, bits)}), None)}
    plans: dict[str, tuple[Policy, Schedule | None]] = {"clean": (Policy(), None)}
    plans |= {_fixed(level): (Policy({"*": kind}), Constant(level)) for level in grid}
    plans |= {method: own[method]} if method in own else {}
    curves, model = {}, None
    for number, (name, (policy, schedule)) in enumerate(plans.items()):
        if progress:
            progress(name, number, len(plans))
        trained, curve = _trained(trainer, name, policy, schedule, (kind, data, grid), seed, run)
        curves[name] = curve
        if name == method or (method == "noisy" and name == _fixed(std)):
            model = trained
    assert model is not None
    oracle = tuple(curves[_fixed(level)][i] for i, level in enumerate(grid))
    if method == "noisy":
        curves[method] = curves[_fixed(std)]
    best = max(map(_fixed, grid), key=lambda name: robustness(curves[name], oracle).mean)
    mean = {"noisy": std, "vant": vant.mean, "qat_constant_scale": 0.0}[method]
    policy = plans[method][0] if method == "qat_constant_scale" else Policy()
    return Hardening(method, std, mean, grid, curves, oracle, best, model, policy)


def _trained(
    trainer: Trainer, name: str, policy: Policy, schedule: Schedule | None,
    judged: tuple[Gaussian, tuple[Tensor, Tensor], tuple[float, ...]], seed: int, run: Run | None,
) -> tuple[nn.Module, tuple[float, ...]]:  # fmt: skip
    """One network and its accuracies; both are read back when the run has them."""
    kind, data, grid = judged
    stage = name.replace(" ", "-")
    place = None if run is None else run.path / "training" / stage
    model = trainer(policy, seed=seed, schedule=schedule, checkpoint=place)
    bare = plain(model) if schedule is not None else model

    def judge() -> list[float]:
        return accuracies(bare, kind, data, grid, seed=seed)

    return bare, tuple(judge() if run is None else run.stage(stage, judge))
