"""Moment rules by operator: what an operator does to the mean and variance of independent Gaussians."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["RULES", "SETTINGS", "register_moment_rule", "rule_of"]

Rule = Callable[..., Any]
R = TypeVar("R", bound=Rule)

RULES: dict[Any, Rule] = {}
SETTINGS: dict[Any, dict[str, Any]] = {}


def register_moment_rule(*targets: Any, **settings: Any) -> Callable[[R], R]:
    """Decorator that says how an operator of an exported graph maps means and variances.

    The rule is called with the operator's own arguments, tensors that are random being `Gaussian`; one whose ``var`` is
    None is known exactly. It returns a `Gaussian`, or what the operator returns with Gaussians in the place of tensors.
    A later registration of the same operator wins.

    Args:
        *targets: operators such as ``torch.ops.aten.gelu.default``, or ``torch.ops.aten.gelu`` for all its overloads.
        **settings: further keyword arguments of the rule that `calibrate_pfp` may change at each place, with defaults.

    >>> import torch
    >>> from netfit.bayes import Gaussian
    >>> @register_moment_rule(torch.ops.aten.neg.default)
    ... def negate(x):
    ...     return Gaussian(-x.mean, x.var)
    """

    def register(rule: R) -> R:
        for target in targets:
            RULES[target] = rule
            SETTINGS[target] = settings
        return rule

    return register


def rule_of(target: Any) -> tuple[Rule, dict[str, Any]] | None:
    """Rule and default settings of an operator, None when nobody registered one."""
    for key in (target, getattr(target, "overloadpacket", None)):
        if key in RULES:
            return RULES[key], dict(SETTINGS[key])
    return None
