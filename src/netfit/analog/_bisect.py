"""Where a falling curve crosses a level, with few evaluations."""

import math
from dataclasses import dataclass, field

__all__ = ["Bisection"]

WIDEN = 4.0  # factor from level to level while the crossing is not enclosed
CLOSE = 1.25  # ratio of the enclosing levels that is close enough


@dataclass
class Bisection:
    """Search in log scale for the level at which accuracy falls below `half`.

    Args:
        start: first level.
        half: accuracy to cross.
        largest: level beyond which the search gives up (the crossing is censored).

    >>> search = Bisection(start=1.0, half=0.5, largest=1e3)
    >>> while (level := search.next()) is not None:
    ...     search.tell(level, 1 / (1 + level / 30))
    >>> search.above < 30 < search.below, len(search.told)
    (True, 7)
    """

    start: float
    half: float
    largest: float
    above: float = 0.0  # largest level known to be fine
    below: float = math.inf  # smallest level known to be too much
    told: list[tuple[float, float]] = field(default_factory=list)

    def next(self) -> float | None:
        """Level to evaluate, None when done."""
        if self.above >= self.largest or self.below <= self.start * 1e-9:
            return None
        if self.below == math.inf:
            return self.start if not self.told else min(self.above * WIDEN, self.largest)
        if self.above == 0.0:
            return self.below / WIDEN
        return None if self.below / self.above <= CLOSE else math.sqrt(self.above * self.below)

    def tell(self, level: float, accuracy: float) -> None:
        """Take the accuracy at a level."""
        self.told.append((level, accuracy))
        if accuracy >= self.half:
            self.above = max(self.above, level) if level < self.below else self.above
        else:
            self.below = min(self.below, level)
