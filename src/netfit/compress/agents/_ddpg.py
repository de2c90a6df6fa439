"""Deep deterministic policy gradient, as Galen uses it: one update for each episode, no terminal states.

From "Continuous control with deep reinforcement learning" (2016) and "Towards Hardware-Specific Automatic Compression
of Neural Networks" (2022). Every draw is seeded by its caller, so that networks, optimisers and the mean reward are
the whole state.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Actor", "Critic", "Ddpg", "noisy"]

HIDDEN = (400, 300)
ACTOR_RATE, CRITIC_RATE, CRITIC_DECAY = 1e-4, 1e-3, 1e-2
DISCOUNT, TAU, REWARD_RATE = 0.99, 1e-3, 0.5


class Actor(nn.Module):
    """State (n, features) -> actions (n, actions) in [0, 1]."""

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, HIDDEN[0]), nn.Linear(*HIDDEN)
        self.out = nn.Linear(HIDDEN[1], actions)
        nn.init.uniform_(self.out.weight, -3e-3, 3e-3)

    def forward(self, state: Tensor) -> Tensor:
        """Actions for each state."""
        return self.out(self.second(self.first(state).relu()).relu()).sigmoid()


class Critic(nn.Module):
    """State (n, features) and actions (n, actions) -> values (n, actions)."""

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(features, HIDDEN[0]), nn.Linear(actions, HIDDEN[0])
        self.second, self.out = nn.Linear(*HIDDEN), nn.Linear(HIDDEN[1], actions)
        nn.init.uniform_(self.out.weight, -3e-4, 3e-4)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """Values of the actions in each state."""
        return self.out(self.second((self.state(state) + self.action(action)).relu()).relu())


class Ddpg:
    """Actor and critic, their slow copies and optimisers, and the moving mean of the rewards.

    Args:
        features: of a state.
        actions: of a step.
        seed: of the initial weights.
    """

    def __init__(self, features: int, actions: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor, self.critic = Actor(features, actions), Critic(features, actions)
            self.slow_actor, self.slow_critic = Actor(features, actions), Critic(features, actions)
        self.slow_actor.load_state_dict(self.actor.state_dict())
        self.slow_critic.load_state_dict(self.critic.state_dict())
        self._actor_steps = torch.optim.Adam(self.actor.parameters(), lr=ACTOR_RATE)
        self._critic_steps = torch.optim.Adam(self.critic.parameters(), lr=CRITIC_RATE, weight_decay=CRITIC_DECAY)
        self.mean_reward: float | None = None

    @torch.no_grad()
    def act(self, state: Tensor) -> Tensor:
        """Actions (actions,) for one state (features,), without noise."""
        return self.actor(state.float().unsqueeze(0)).squeeze(0)

    def update(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor) -> None:
        """One step on a batch of transitions: (n, features), (n, actions), (n,), (n, features)."""
        mean = float(reward.mean())
        old = self.mean_reward
        self.mean_reward = mean if old is None else old + REWARD_RATE * (mean - old)
        state, action, following = state.float(), action.float(), following.float()
        with torch.no_grad():
            ahead = self.slow_critic(following, self.slow_actor(following))
            goal = (reward - self.mean_reward).float().unsqueeze(1) + DISCOUNT * ahead
        _descend(self._critic_steps, F.mse_loss(self.critic(state, action), goal))
        _descend(self._actor_steps, -self.critic(state, self.actor(state)).mean())
        with torch.no_grad():
            for fast, slow in ((self.critic, self.slow_critic), (self.actor, self.slow_actor)):
                for source, copy in zip(fast.parameters(), slow.parameters(), strict=True):
                    copy.lerp_(source, TAU)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the mean reward, by name."""
        found = {f"{part}/{k}": v for part, net in self._nets().items() for k, v in net.state_dict().items()}
        for part, steps in self._steps().items():
            for index, values in steps.state_dict()["state"].items():
                found |= {f"{part}/{index}/{k}": v for k, v in values.items()}
        return {name: tensor.detach().clone() for name, tensor in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for part, net in self._nets().items():
            net.load_state_dict({k: tensors[f"{part}/{k}"] for k in net.state_dict()})
        for part, steps in self._steps().items():
            state: dict[int, dict[str, Any]] = {}
            for name, tensor in tensors.items():
                if name.startswith(f"{part}/"):
                    _, index, key = name.split("/")
                    state.setdefault(int(index), {})[key] = tensor
            steps.load_state_dict({**steps.state_dict(), "state": state})

    def _nets(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "slow_actor": self.slow_actor,
            "slow_critic": self.slow_critic,
        }

    def _steps(self) -> dict[str, torch.optim.Optimizer]:
        return {"actor_steps": self._actor_steps, "critic_steps": self._critic_steps}


def noisy(actions: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Draw from a normal distribution around the actions, cut off at 0 and 1.

    Args:
        actions: means (actions,).
        sigma: standard deviation before the cut.
        generator: of the draw.
    """
    mean = actions.double()
    low, high = (torch.special.ndtr((bound - mean) / sigma) for bound in (0.0, 1.0))
    share = torch.rand(mean.shape, dtype=torch.float64, generator=generator)
    return (mean + sigma * torch.special.ndtri(low + share * (high - low))).clamp(0.0, 1.0)


def _descend(steps: torch.optim.Optimizer, loss: Tensor) -> None:
    steps.zero_grad()
    loss.backward()
    steps.step()
