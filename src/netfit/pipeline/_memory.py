"""How many activations a device keeps over time."""

from __future__ import annotations

import numpy as np

from ._costs import FloatArray, StageCosts
from ._flat import B, F, Flat, IntArray, W, X

__all__ = ["memory_curve"]


def memory_curve(
    flat: Flat, costs: StageCosts, start: FloatArray, end: FloatArray, rows: list[IntArray]
) -> list[tuple[FloatArray, FloatArray]]:
    """(seconds, bytes from then on) of every device.

    A forward stores its activations when it starts, a whole backward frees them when it ends; of a split one, ``B``
    frees the share ``free_at_b`` and ``W`` the rest.
    """
    # A paired operation ends together with its partner, so both free at the same moment.
    n = len(flat.ops)
    share = np.zeros(4)
    share[[F, B, W, X]] = 1.0, -costs.free_at_b, costs.free_at_b - 1.0, -1.0
    change = share[flat.kind] * costs.activation_bytes[flat.stage]
    stores = flat.kind == F
    curves = []
    for row in rows:
        i = row % n
        when = np.where(stores[i], start[row], end[row])
        # What ends at an instant is freed before what starts then is stored.
        order = np.lexsort((stores[i], when))
        total = np.cumsum(change[i][order])
        size = costs.activation_bytes.max(initial=1.0)
        curves.append((when[order], np.where(np.abs(total) < 1e-9 * size, 0.0, total)))
    return curves
