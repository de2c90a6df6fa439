"""What the agent remembers: transitions in a ring, and the running mean and variance of its states."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Normaliser", "Replay"]

CAPACITY = 2000


class Normaliser:
    """Standardises states by the mean and variance of all states seen so far.

    Args:
        features: of a state.
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, features, dtype=torch.float64)

    def add(self, state: Tensor) -> None:
        """Count one state (features,) in (Welford's update)."""
        self.count += 1
        before = state - self.mean
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (state - self.mean)

    def __call__(self, state: Tensor) -> Tensor:
        """The state in standard deviations from the mean; a feature that never changed becomes 0."""
        deviation = (self.squares / max(self.count, 1)).sqrt()
        return (state - self.mean) / torch.where(deviation > 0, deviation, 1.0)

    def copy(self) -> "Normaliser":
        """An independent one with the same past."""
        other = Normaliser(len(self.mean))
        other.count, other.mean, other.squares = self.count, self.mean, self.squares
        return other


class Replay:
    """The last 2000 transitions.

    Args:
        features: of a state.
        actions: of a step.
    """

    def __init__(self, features: int, actions: int) -> None:
        self._columns = {
            "state": torch.zeros(0, features, dtype=torch.float64),
            "action": torch.zeros(0, actions, dtype=torch.float64),
            "reward": torch.zeros(0, dtype=torch.float64),
            "following": torch.zeros(0, features, dtype=torch.float64),
        }

    def __len__(self) -> int:
        return len(self._columns["reward"])

    def add(self, states: Tensor, actions: Tensor, reward: float) -> None:
        """Store one episode: the same reward for every step, and the last state follows itself.

        The very first transition of all is left out: its state was standardised by itself alone.

        Args:
            states: standardised (steps, features).
            actions: (steps, actions).
            reward: of the episode.
        """
        first = 0 if len(self) else 1
        new = {
            "state": states,
            "action": actions,
            "reward": torch.full((len(states),), reward, dtype=torch.float64),
            "following": torch.cat([states[1:], states[-1:]]),
        }
        self._columns = {k: torch.cat([v, new[k][first:]])[-CAPACITY:] for k, v in self._columns.items()}

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Different transitions at random: states, actions, rewards, following states."""
        chosen = torch.randperm(len(self), generator=generator)[:size]
        state, action, reward, following = (v[chosen] for v in self._columns.values())
        return state, action, reward, following

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name."""
        return {f"replay/{name}": column for name, column in self._columns.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self._columns = {name: tensors[f"replay/{name}"] for name in self._columns}
