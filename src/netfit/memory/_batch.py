"""`max_batch_size`: the largest batch whose training step fits."""

from typing import Literal

from netfit.errors import ConfigError

from ._budget import BudgetError, limit_of
from ._compress import CodecPolicy
from ._measure import measure
from ._plan import plan
from ._step import TrainingStep

__all__ = ["max_batch_size"]

_TRIES = 6
_NEAR = 0.98  # of the memory: close enough to stop


def max_batch_size(
    step: TrainingStep, memory: str | float, *, policy: CodecPolicy | Literal["auto"] | None = None, seed: int = 0
) -> int:
    """Largest batch whose measured peak stays within a memory.

    The peak is a straight line in the batch size, but for workspaces; two measurements give it, and the batch it
    points at is measured too, until it fits and fills the memory or no larger one would.

    Args:
        step: with a batch of any size, which is repeated or cut.
        memory: bytes, or such as ``"8GB"``.
        policy: how activations are kept; ``"auto"`` takes the plan of least memory for the given batch.
        seed: of random rounding.

    Raises:
        ConfigError: the memory is no number of bytes.
        BudgetError: not even one sample fits.
    """
    limit = limit_of(memory, 0)
    if limit < 4096:
        raise ConfigError(f"memory {memory!r}: give bytes, such as 8GB")
    chosen = plan(step, seed=seed).words if policy == "auto" else policy

    def peak(n: int) -> int:
        return measure(step.resized(n), policy=chosen or None, repeats=0, seed=seed).peak

    known = {n: peak(n) for n in (step.batch_size, 2 * step.batch_size)}
    for _ in range(_TRIES):
        below = max((n for n in known if known[n] <= limit), default=0)
        above = min((n for n in known if known[n] > limit), default=None)
        if below and (known[below] >= _NEAR * limit or above == below + 1):
            return below
        guess = _guess(known, limit)
        if above is not None:
            guess = min(guess, above - 1)
        guess = max(guess, below + 1, 1)
        if guess in known:
            break
        known[guess] = peak(guess)
    best = max((n for n in known if known[n] <= limit), default=0)
    if not best:
        least = min(known.values())
        raise BudgetError.below(limit, least, step.held() | {"activations": least - sum(step.held().values())}, 0.0)
    return best


def _guess(known: dict[int, int], limit: int) -> int:
    """Where the line through the two measurements nearest to the limit meets it."""
    a, b = sorted(known, key=lambda n: abs(known[n] - limit))[:2]
    slope = (known[b] - known[a]) / (b - a)
    return int(a + (limit - known[a]) / slope) if slope > 0 else max(a, b)
