"""What an agent's actions in [0, 1] mean: channels kept, and a precision.

Galen's third method, "mixed" (bit-serial operators of one to six bits), does not exist on netfit's targets: an action
that asks for it gets the narrowest precision the layer may have, and no bit widths are chosen.
"""

from collections.abc import Sequence
from math import floor

__all__ = ["channels", "precision", "representative_precision", "representative_sparsity"]

INT8, MIXED = 0.2, 0.5  # an action above these asks for int8, for bit-serial


def channels(sparsity: float, steps: Sequence[int], rounding: int = 1) -> int:
    """Channels to keep: Galen's discretiser, then the nearest count the space offers (of two the smaller).

    Galen rounds to 32 for the joint agent, which its bit-serial operators need; here the steps are what the target
    is fast at, so that the agents leave `rounding` alone.

    Args:
        sparsity: share of the channels to remove, 0 to 1.
        steps: allowed counts, ascending, the full one last.
        rounding: the count is a multiple of this.

    >>> channels(0.5, (4, 8, 12, 16)), channels(1.0, (4, 8, 12, 16)), channels(0.0, (4, 8, 12, 16))
    (8, 4, 16)
    """
    full = steps[-1]
    blocks = full / rounding
    kept = min(max(floor((1 - sparsity) * blocks) + 1, 1), blocks) * rounding
    return min(steps, key=lambda n: (abs(n - kept), n))


def precision(activation: float, weight: float, offered: Sequence[str]) -> str:
    """Precision of a layer: the stronger of the two actions decides.

    Args:
        activation: action for the bits of the activations.
        weight: action for the bits of the weights.
        offered: precisions the layer may have, the widest first.

    >>> [precision(a, 0.1, ("fp32", "int8")) for a in (0.1, 0.3, 0.9)]
    ['fp32', 'int8', 'int8']
    """
    asked = max(activation, weight)
    if asked > MIXED:
        return offered[-1]
    return "int8" if asked > INT8 and "int8" in offered else offered[0]


def representative_sparsity(kept: int, full: int) -> float:
    """An action that keeps so many channels, for a point the agent did not choose."""
    return 1 - (kept - 0.5) / full


def representative_precision(chosen: str, offered: Sequence[str]) -> float:
    """An action that gives this precision."""
    if chosen == offered[0]:
        return INT8 / 2
    return (INT8 + MIXED) / 2 if chosen == "int8" else (MIXED + 1) / 2
