"""`apply`, the only verb that changes a model."""

import copy
from typing import Any

import torch
from torch import nn

from netfit.errors import ConfigError

from ._policy import Policy
from ._technique import sites

__all__ = ["apply"]


def apply(model: nn.Module, policy: Policy, *example_inputs: torch.Tensor) -> nn.Module:
    """Build a new model in which every place a policy names is treated as it says.

    Techniques act in the order of their stages (structure, prune, quantize, noise), each on the network the earlier
    ones left, so a policy may list them in any order. The given model is untouched.

    Args:
        model: any module.
        policy: what to do where.
        example_inputs: tensors the model can be run with.

    Returns:
        A deep copy, changed. Hook techniques keep all of its state_dict keys.

    Raises:
        ConfigError: a pattern matches nothing, or a site was removed by an earlier stage.
        NetfitError: whatever a technique finds wrong.

    Example:
        >>> from netfit.surgery import Quantize, calibrate
        >>> model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(8, 4)
        >>> small = apply(model, Policy({"0": Quantize(weight_bits=4)}), x)
        >>> calibrate(small, [x])
        >>> bool((small(x) != model(x)).any())
        True
    """
    chosen = policy.resolve(sites(model, *example_inputs))
    new = copy.deepcopy(model)
    for i, (cls, at) in enumerate(chosen.items()):
        now: dict[Any, Any] = {s.key: s for s in (sites(new, *example_inputs) if i else at)}
        gone = [s.name for s in at if s.key not in now]
        if gone:
            raise ConfigError(f"{cls.name} cannot act on {gone[0]!r}: an earlier stage of the policy replaced it")
        new = cls.rewrite(new, {now[s.key]: t for s, t in at.items()}, example_inputs)
    return new
