"""Galen's agents as an Optuna sampler: one episode is one trial, one step is one layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from netfit.compress._space import SearchSpace
from netfit.errors import ConfigError
from netfit.io import read_artifact, write_artifact
from netfit.seeding import derive
from netfit.workload import Op

from ._actions import channels, precision, representative_precision, representative_sparsity
from ._ddpg import Ddpg, noisy
from ._replay import Normaliser, Replay
from ._states import ACTIONS, Damage, Features, heads

__all__ = ["DdpgSampler"]

WARM_UP, BATCH = 10, 128
SIGMA, DECAY = 0.5, 0.95
BETA = -5.0


@dataclass(frozen=True)
class _Episode:
    """What the agent did in one trial."""

    point: dict[str, Any]  # dimension name to the value chosen
    seen: list[Tensor]  # states before standardisation
    states: Tensor
    actions: Tensor


class DdpgSampler(BaseSampler):
    """Walks the layers in order and chooses sparsity, precision, or both; learns from each finished trial.

    From "Towards Hardware-Specific Automatic Compression of Neural Networks" (2022), "independent" mode: an episode
    starts from the uncompressed network, every step of it earns the reward score + beta |cost / goal - 1|, and the
    networks make one update after it. Dimensions the agent has no action for stay uncompressed.

    An episode is a function of the agent's state and the trial's index alone. A trial that is repeated after a kill
    therefore gives the same transitions, and one that was learnt from before the kill is not learnt from twice.

    Args:
        space: what to choose from.
        agent: ``"prune"``, ``"quantize"`` or ``"joint"``.
        damage: what `measure_damage` gave for this agent.
        goal: cost ratio to reach.
        folder: holds the agent's state, in ``ddpg-<agent>``; read back when it is there.
        seed: of networks, noise and batches.

    Raises:
        ConfigError: the space has nothing this agent could choose.
        ArtifactError: the state in the folder is damaged.
    """

    def __init__(
        self, space: SearchSpace, agent: str, damage: Damage, *, goal: float, folder: Path, seed: int = 0
    ) -> None:
        self.space, self.agent, self.goal, self.seed = space, agent, goal, seed
        self.features = Features(space, damage)
        self._dimensions, self._heads = space.dimensions(), heads(space)
        self._reference = space.params(space.candidate({}))
        self._visited = [i for i, op in enumerate(self.features.layers) if self._decide(op, [0.5] * 3)]
        if not self._visited:
            raise ConfigError(f"sampler 'ddpg-{agent}' has no layer to choose for: see methods and ignore")
        size, actions = Features.SIZES[agent], len(ACTIONS[agent])
        self.ddpg = Ddpg(size, actions, derive(seed, "networks"))
        self.replay, self.normaliser = Replay(size, actions), Normaliser(size)
        self.episodes = 0
        self._learnt: set[int] = set()  # indices of the trials learnt from
        self._running: dict[int, _Episode] = {}  # trial number to what it was given
        self._place = folder / f"ddpg-{agent}"
        if self._place.exists():
            self._load()

    # -- what Optuna calls -------------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Empty: every parameter is chosen by `sample_independent`."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The stored form of the value that the trial's episode chose for a dimension."""
        if trial.number not in self._running:
            self._running[trial.number] = self._episode(_index(study, trial), self._decoded(trial))
        chosen = self._running[trial.number].point.get(param_name, self._reference[param_name])
        return self._dimensions[param_name].encode(chosen)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Learn from a complete trial and write the agent's state; a failed one teaches nothing."""
        episode = self._running.pop(trial.number, None)
        index = _index(study, trial)
        if state != TrialState.COMPLETE or values is None or index in self._learnt:
            return
        known = self._decoded(trial)
        if episode is None or any(known[name] != value for name, value in episode.point.items()):
            episode = self._episode(index, known)
        ratio = trial.constraints["latency"] + self.goal
        self._learn(episode, values[0] + BETA * abs(ratio / self.goal - 1))
        self._learnt.add(index)
        self._save()

    # -- the agent ---------------------------------------------------------------------------------------------

    def _episode(self, index: int, known: Mapping[str, Any]) -> _Episode:
        """Walk the layers; where a value is already known, the action is one that gives it."""
        generator = torch.Generator().manual_seed(derive(self.seed, "episode", index))
        normaliser = self.normaliser.copy()
        point: dict[str, Any] = {}
        seen, states, actions = [], [], []
        action = torch.zeros(len(ACTIONS[self.agent]), dtype=torch.float64)
        for i in self._visited:
            op = self.features.layers[i]
            candidate = self.space.candidate(point)
            seen.append(torch.tensor(self.features.state(self.agent, i, candidate, action.tolist())).double())
            normaliser.add(seen[-1])
            states.append(normaliser(seen[-1]))
            action = self._act(states[-1], generator)
            chosen = self._decide(op, action.tolist())
            fixed = {name: known[name] for name in chosen if known.get(name, chosen[name]) != chosen[name]}
            action = self._corrected(op, action, fixed)
            actions.append(action)
            point |= chosen | fixed
        return _Episode(point, seen, torch.stack(states), torch.stack(actions))

    def _act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        if self.episodes < WARM_UP:
            return torch.rand(len(ACTIONS[self.agent]), dtype=torch.float64, generator=generator)
        return noisy(self.ddpg.act(state), SIGMA * DECAY ** (self.episodes - WARM_UP), generator)

    def _decide(self, op: Op, action: Sequence[float]) -> dict[str, Any]:
        """What an action means for a layer: dimension name to value, for the dimensions there are."""
        values = dict(zip(ACTIONS[self.agent], action, strict=False))
        chosen: dict[str, Any] = {}
        if "sparsity" in values and op.name in self._heads:
            group = self._heads[op.name].name
            chosen[f"keep:{group}"] = channels(values["sparsity"], self.space.steps[group])
        if "weight" in values and f"precision:{op.name}" in self._dimensions:
            offered = self.space.precisions[op.name]
            chosen[f"precision:{op.name}"] = precision(values["activation"], values["weight"], offered)
        return chosen

    def _corrected(self, op: Op, action: Tensor, fixed: Mapping[str, Any]) -> Tensor:
        values = dict(zip(ACTIONS[self.agent], action.tolist(), strict=True))
        for name, value in fixed.items():
            if name.startswith("keep:"):
                values["sparsity"] = representative_sparsity(value, self._heads[op.name].size)
            else:
                values["activation"] = values["weight"] = representative_precision(
                    value, self.space.precisions[op.name]
                )
        return torch.tensor(list(values.values()), dtype=torch.float64)

    def _learn(self, episode: _Episode, reward: float) -> None:
        for state in episode.seen:
            self.normaliser.add(state)
        self.replay.add(episode.states, episode.actions, reward)
        if self.episodes >= WARM_UP and len(self.replay) > BATCH:
            generator = torch.Generator().manual_seed(derive(self.seed, "batch", self.episodes))
            self.ddpg.update(*self.replay.sample(BATCH, generator))
        self.episodes += 1

    def _decoded(self, trial: FrozenTrial) -> dict[str, Any]:
        return {n: self._dimensions[n].decode(v) for n, v in trial.params.items() if n in self._dimensions}

    # -- its state ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        meta = {
            "episodes": self.episodes,
            "learnt": sorted(self._learnt),
            "mean_reward": self.ddpg.mean_reward,
            "states": self.normaliser.count,
        }
        moments = {"states/mean": self.normaliser.mean, "states/squares": self.normaliser.squares}
        write_artifact(self._place, meta, self.ddpg.tensors() | self.replay.tensors() | moments)

    def _load(self) -> None:
        kept = read_artifact(self._place)
        self.episodes, self._learnt = kept.meta["episodes"], set(kept.meta["learnt"])
        self.ddpg.mean_reward, self.normaliser.count = kept.meta["mean_reward"], kept.meta["states"]
        self.normaliser.mean, self.normaliser.squares = kept.tensors["states/mean"], kept.tensors["states/squares"]
        self.ddpg.load(kept.tensors)
        self.replay.load(kept.tensors)


def _index(study: Study, trial: FrozenTrial) -> int:
    """The number of trials before this one, repetitions not counted; a repetition has its original's."""
    if "index" in trial.user_attrs:
        return int(trial.user_attrs["index"])
    before = study.get_trials(deepcopy=False)[: trial.number]
    return sum("retry_of" not in t.user_attrs for t in before)
