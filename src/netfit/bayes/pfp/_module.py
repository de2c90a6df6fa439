"""The network that computes with means and variances: one pass instead of many samples.

"Accelerated Execution of Bayesian Neural Networks using a Single Probabilistic Forward Pass and Code Generation"
(2024).
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from netfit.bayes._gaussian import Gaussian
from netfit.bayes.svi import bayes_layers, posterior
from netfit.bayes.svi._layers import Rounding
from netfit.errors import ConfigError, did_you_mean
from netfit.workload import export_program

from . import _layers, _pool, _views  # noqa: F401  they register their rules
from ._head import Head, head_of, logits
from ._program import Fallback, Program, Step, read_program

__all__ = ["PFP", "HeadCov", "MaxPool", "to_pfp"]

MaxPool = Literal["auto", "select", "clark"]
HeadCov = Literal["full", "diag"]
LOGITS = "logits"  # the place of the factor of the variances
MOST_CLASSES = 512  # of a full covariance: 512^2 numbers an image


class PFP(nn.Module):
    """A Bayesian network in one probabilistic forward pass. Made by `to_pfp`.

    In evaluation mode the weights' moments are computed once; in training mode anew in every pass, with gradients to
    means and standard deviations.

    Attributes:
        source: the Bayesian network it was made from (a copy); its parameters are this module's.
        shape: one input without the batch.
        head_cov: ``"full"`` when the logits come with their covariance.
        head: the layers it is computed through.
        scale: factor of the logits' variances that `calibrate_pfp` measured; 1 where they needed none.
    """

    def __init__(self, source: nn.Module, program: Program, shape: tuple[int, ...], head_cov: HeadCov) -> None:
        super().__init__()
        self.source, self.program, self.shape, self.head_cov = source, program, shape, head_cov
        self.head = head_of(program) if head_cov == "full" else None
        self.scale = 1.0
        self._weights: dict[str, Any] | None = None
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch to live moments of the weights, or back to fixed ones."""
        super().train(mode)
        self.source.eval()  # batch statistics and random draws have no place in a pass over moments
        self._weights = None
        return self

    def weights(self) -> dict[str, Any]:
        """Everything the graph reads beside its input: Gaussians and tensors by their names in the graph."""
        if self.training:
            return self._moments()
        if self._weights is None:
            self._weights = {name: _fixed(value) for name, value in self._moments().items()}
        return self._weights

    def _moments(self) -> dict[str, Any]:
        state: dict[str, Tensor] = dict(self.source.named_parameters(remove_duplicate=False))
        state |= dict(self.source.named_buffers(remove_duplicate=False))
        random = posterior(self.source)
        return {name: random.get(key, state.get(key)) for name, key in self.program.weights.items()}

    def forward(self, x: Tensor) -> Gaussian:
        """Logits as a `Gaussian` (batch, classes).

        Args:
            x: (batch, ...).
        """
        return moments(self.program, self.head, self.weights(), x, self.scale)

    def settings(self) -> dict[str, dict[str, Any]]:
        """What calibration may choose, by place: the rule of a maximum, the correlation of an average.

        The place ``"logits"`` has the factor of their variances where it is not 1.
        """
        found = {step.site: dict(step.settings) for step in self.program.steps if step.settings}
        return found if self.scale == 1 else found | {LOGITS: {"scale": self.scale}}

    def use(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over `settings` of an earlier calibration.

        Raises:
            ConfigError: a place does not exist or has no such choice.
        """
        places = {step.site: step for step in self.program.steps if step.settings}
        for site, chosen in settings.items():
            if site == LOGITS:
                self.scale = checked_scale(chosen.get("scale"))
                continue
            if site not in places:
                raise ConfigError(f"no pooling is called {site!r}: {did_you_mean(site, places)}")
            for name, value in chosen.items():
                check_setting(places[site], name, value)
                places[site].settings[name] = value

    def compile(  # type: ignore[override]
        self, backend: str | Sequence[str] = "auto", batch_size: int = 1, *, threads: int = 1
    ) -> Callable[[Tensor], Gaussian]:
        """The same pass in other code, for batches of one size, with the weights of now.

        Args:
            backend: ``"eager"``, ``"inductor"`` (torch.compile), ``"onnx"`` (ONNX Runtime) or ``"native"`` (one C call
                for the whole net); several of them, or ``"auto"`` for all, are timed and the fastest is taken.
            batch_size: inputs a call.
            threads: of onnx and torch; native runs on one.

        Returns:
            A function of x (batch_size, ...) that returns the logits' `Gaussian`; its ``backend`` names the code, and
            its ``seconds`` hold what every candidate took.

        Raises:
            ConfigError: an unknown backend.
            UnsupportedLayerError: the backend lacks an operator (``"auto"`` leaves such a backend out).
            TargetUnavailable: there is no C compiler.
        """
        from ._compile import compile_pfp

        return compile_pfp(self, backend, batch_size, threads)

    def export(self, path: str | Path, *, samples: int = 0) -> None:
        """Write an ONNX file with the outputs logits_mean, logits_var and, with a full covariance, logits_cov.

        Args:
            path: ending in ``.onnx``.
            samples: with at least 2, the file also draws that many logits and returns probs, total, aleatoric and
                epistemic (see `Uncertainty`): the whole answer in one call of the runtime.

        Raises:
            ConfigError: another ending.
            UnsupportedLayerError: an operator has no ONNX form.
            MissingExtraError: the extra ``export`` is not installed.
        """
        from ._export import export_pfp

        export_pfp(self, path, samples)


def _fixed(value: Gaussian | Tensor | None) -> Gaussian | Tensor | None:
    """A copy that later training of the network does not reach."""
    if value is None:
        return None
    if isinstance(value, Gaussian):
        return Gaussian(value.mean.detach().clone(), None if value.var is None else value.var.detach().clone())
    return value.detach().clone()


def moments(program: Program, head: Head | None, weights: Mapping[str, Any], x: Tensor, scale: float) -> Gaussian:
    """The pass itself, free of the module, so that backends can trace it."""
    env = program.run({**weights, program.inputs[0]: Gaussian(x)})
    out = env[program.output]
    return scaled(Gaussian(out.mean, out.var) if head is None else logits(head, env, out), scale)


def scaled(out: Gaussian, scale: float) -> Gaussian:
    """Logits with every variance and covariance times a number."""
    if scale == 1:
        return out
    return Gaussian(out.mean, *(None if t is None else t * scale for t in (out.var, out.cov)))


def to_pfp(
    model: nn.Module,
    example: Tensor,
    *,
    maxpool: MaxPool = "auto",
    avgpool_rho: float | Mapping[str, float] | Literal["auto"] = "auto",
    head_cov: HeadCov = "full",
    fallback: Fallback | None = None,
) -> PFP:
    """Rewrite a Bayesian network into one that maps an input to the mean and variance of its logits.

    The exported graph is walked, and every operator is replaced by its moment rule (`register_moment_rule`).

    Args:
        model: with Bayesian layers, in evaluation mode; untouched.
        example: an input batch it can be run with.
        maxpool: rule of every maximum; ``"auto"`` is ``"select"`` until `calibrate_pfp` measures which is right.
        avgpool_rho: correlation within the windows of average pooling, one number or one by place; ``"auto"`` is 0
            until `calibrate_pfp` measures it.
        head_cov: ``"full"`` adds the covariance of the logits, which comes from the last two layers; classes squared
            numbers an input, so at most 512 classes.
        fallback: what to do with an operator without a rule: ``"quadrature"`` for element-wise ones, ``"mc"`` for any.

    Raises:
        ConfigError: the model is in training mode or has no Bayesian layer, or an argument does not fit.
        UnsupportedLayerError: an operator has no moment rule (it and its place are named), or the network cannot be
            exported.

    >>> from netfit.bayes import to_bayesian
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> logits = to_pfp(to_bayesian(net, torch.ones(1, 3)), torch.ones(1, 3))(torch.ones(5, 3))
    >>> logits.mean.shape, bool((logits.var > 0).all()), logits.cov.shape
    (torch.Size([5, 2]), True, torch.Size([5, 2, 2]))
    """
    _check_request(model, maxpool, head_cov)
    source = copy.deepcopy(model)
    program = _export(source, example, fallback)
    _choose(program, maxpool, avgpool_rho)
    pfp = PFP(source, program, tuple(example.shape[1:]), head_cov)
    with torch.no_grad():
        out = pfp.program.run({**pfp.weights(), program.inputs[0]: Gaussian(example[:2])})[program.output]
    if not isinstance(out, Gaussian) or out.mean.dim() != 2:
        raise ConfigError("the network does not give random logits (batch, classes)")
    if head_cov == "full":
        _check_head(program, out.mean.shape[1])
    return pfp


def _check_request(model: nn.Module, maxpool: str, head_cov: str) -> None:
    if model.training:
        raise ConfigError(f"{type(model).__name__} is in training mode: call eval() before to_pfp")
    if not bayes_layers(model):
        raise ConfigError(f"{type(model).__name__} has no Bayesian layer: apply Bayesian to it first")
    for name, value, known in (("maxpool", maxpool, get_args(MaxPool)), ("head_cov", head_cov, get_args(HeadCov))):
        if value not in known:
            raise ConfigError(f"{name}={value!r}; {did_you_mean(value, known)}")


def _export(source: nn.Module, example: Tensor, fallback: Fallback | None) -> Program:
    """Steps of the network with its weights as they are kept, not as they are rounded: moments know of rounding."""
    layers = set(bayes_layers(source).values())
    kept = [(layer, layer.rounding) for layer in layers]
    for layer in layers:
        layer.rounding = Rounding()
    try:
        # Two inputs: a batch of one would be built into the graph as a constant.
        batch = example if len(example) > 1 else torch.cat([example, example])
        return read_program(export_program(source, batch, dynamic_batch=True), fallback)
    finally:
        for layer, rounding in kept:
            layer.rounding = rounding


def _choose(program: Program, maxpool: MaxPool, rho: float | Mapping[str, float] | Literal["auto"]) -> None:
    """Put the caller's choices into the steps; a choice that was made is no longer calibration's."""
    pools = {step.site: step for step in program.steps if "rho" in step.settings}
    given = {} if rho == "auto" else rho if isinstance(rho, Mapping) else dict.fromkeys(pools, rho)
    for site, value in given.items():
        if site not in pools:
            raise ConfigError(f"no average pooling is called {site!r}: {did_you_mean(site, pools)}")
        check_setting(pools[site], "rho", value)
        pools[site].settings["rho"] = float(value)
        pools[site].fixed = True
    for step in program.steps if maxpool != "auto" else ():
        if "how" in step.settings:
            step.settings["how"], step.fixed = maxpool, True


def _check_head(program: Program, classes: int) -> None:
    if classes > MOST_CLASSES:
        raise ConfigError(
            f"{classes} classes need {classes}^2 covariances an input, more than {MOST_CLASSES}^2: use head_cov='diag'"
        )
    if head_of(program) is None:
        raise ConfigError("the logits do not come straight from a linear layer, so only head_cov='diag' is known")


def checked_scale(scale: Any) -> float:
    """Refuse what is no factor of a variance."""
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ConfigError(f"{LOGITS}: scale={scale!r} is no positive factor of the variances")
    return float(scale)


def check_setting(step: Step, name: str, value: Any) -> None:
    """Refuse a choice that the place does not have."""
    if name not in step.settings:
        raise ConfigError(f"{step.site} has no setting {name!r}: {did_you_mean(name, step.settings)}")
    if name == "how" and value not in ("select", "clark"):
        raise ConfigError(f"{step.site}: how={value!r}; {did_you_mean(str(value), ['select', 'clark'])}")
    if name == "rho" and not 0 <= value <= 1:
        raise ConfigError(f"{step.site}: rho={value} is no correlation between 0 and 1")
