"""The covariance of the logits, through the last linear layer and the hidden layer in front of it.

Outputs of a linear layer covary because they share inputs. With J the Jacobian of the logits' mean by a hidden vector
of independent units, their covariance is J diag(v) J^T plus a diagonal. The units of the last hidden layer are
themselves outputs of a linear layer: what they share comes from the vector before, and passes the activation with its
mean slope E[f'] (exact to first order in the correlations). Leaving that out loses a third of the covariance of the
published networks' logits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from netfit.bayes._gaussian import Gaussian

from ._elementwise import SMOOTH, slope, variance
from ._program import Program, Step

__all__ = ["Head", "head_of", "logits"]

_SAME = ("dropout", "feature_dropout", "identity", "contiguous", "clone", "alias", "detach")
_RESHAPED = (*_SAME, "flatten", "view", "reshape")


class Head(NamedTuple):
    """The end of a network: logits = last(activation(hidden(x))).

    Attributes:
        last: linear layer that makes the logits.
        activation, hidden: what feeds it; None when that is something else.
    """

    last: Step
    activation: Step | None
    hidden: Step | None


def head_of(program: Program) -> Head | None:
    """The end of a network, None when the logits do not come straight from a linear layer."""
    made = {step.name: step for step in program.steps}

    def back(name: str, through: tuple[str, ...]) -> Step | None:
        step = made.get(name)
        while step is not None and step.kind in through:
            step = made.get(step.inputs()[0])
        return step

    last = back(program.output, _RESHAPED)
    if last is None or last.kind != "linear":
        return None
    activation = back(last.inputs()[0], _SAME)
    if activation is None or activation.kind.rstrip("_") not in ("relu", "leaky_relu", *SMOOTH):
        return Head(last, None, None)
    hidden = back(activation.inputs()[0], _SAME)
    known = hidden is not None and hidden.kind == "linear"
    return Head(last, activation, hidden) if known else Head(last, None, None)


def logits(head: Head, env: Mapping[str, Any], out: Gaussian) -> Gaussian:
    """The logits with their covariance, whose diagonal becomes their variance."""
    x, mu = env[head.last.inputs()[0]], _mean(env[head.last.inputs()[1]])
    own = variance(out) - (0 if x.var is None else x.var @ mu.square().T)  # what the last weights themselves add
    cov = torch.diag_embed(own.clamp_min(0))
    spread, v = mu.expand(out.mean.shape[0], -1, -1), x.var
    if v is not None and head.activation is not None and head.hidden is not None:
        before, weight = env[head.hidden.inputs()[0]], _mean(env[head.hidden.inputs()[1]])
        gain = slope(head.activation.kind.rstrip("_"), env[head.activation.inputs()[0]], *head.activation.args[1:])
        if isinstance(before, Gaussian) and before.var is not None:
            shared = gain.square() * (before.var @ weight.square().T)
            cov = cov + _through(spread, (v - shared).clamp_min(0))
            spread, v = (spread * gain[:, None, :]) @ weight, before.var
    if v is not None:
        cov = cov + _through(spread, v)
    return Gaussian(out.mean, cov.diagonal(dim1=1, dim2=2), cov)


def _through(jacobian: Tensor, v: Tensor) -> Tensor:
    return (jacobian * v[:, None, :]) @ jacobian.transpose(1, 2)


def _mean(weight: Gaussian | Tensor) -> Tensor:
    return weight.mean if isinstance(weight, Gaussian) else weight
