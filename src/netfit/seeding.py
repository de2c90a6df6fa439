"""One seed for a whole job, and stable child seeds so that the number of workers changes nothing."""

import hashlib
import json
import random

from .errors import ConfigError

__all__ = ["derive", "seed_everything"]

_LIMIT = 2**63  # torch takes any signed 64-bit seed


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    netfit itself draws only from generators it makes with :func:`derive`; this is for a user's model code,
    whose initialisers and dropout draw from the global ones.

    Args:
        seed: 0 <= seed < 2**63.

    Raises:
        ConfigError: the seed is outside that range.
    """
    _check(seed)
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002  NumPy's legacy generator takes 32 bits
    torch.manual_seed(seed)


def derive(seed: int, *keys: str | int) -> int:
    """Child seed for one use, such as one trial or one layer: stable over processes, machines and versions.

    Args:
        seed: the job's seed, 0 <= seed < 2**63.
        *keys: what the child is for; different keys give independent seeds.

    Returns:
        An integer in [0, 2**63).

    Raises:
        ConfigError: the seed is outside its range, or a key is neither text nor an integer.

    >>> derive(0, "trial", 7)
    6750413982524036008
    """
    _check(seed)
    for key in keys:
        if not isinstance(key, str | int):
            raise ConfigError(f"derive takes text and integers as keys, not {key!r}")
    text = json.dumps([int(seed), *keys], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _check(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _LIMIT:
        raise ConfigError(f"seed must be an integer from 0 to 2**63 - 1, not {seed!r}")
