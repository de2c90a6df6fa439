"""How networks of one study are trained: the same recipe with and without noise."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netfit.seeding import derive
from netfit.surgery import Policy, apply
from netfit.train import fit

from ._identity import tensors_digest
from ._injection import Injection
from ._noise import NoiseHook
from .schedules import Schedule

__all__ = ["Trainer"]


@dataclass(frozen=True)
class Trainer:
    """A recipe: the same network, data and settings for every training of a study.

    Args:
        build: makes the network with fresh weights from torch's global generator. A module-level function or a
            `functools.partial` of one when worker processes are used.
        data: training inputs (n, ...) float32 and labels (n,) int64.
        epochs: passes over the samples.
        lr: highest learning rate.
        batch_size: samples a step.
        weight_decay: L2 penalty.
        optimizer: ``"adam"`` as in the papers, or ``"sgd"``.

    Example:
        >>> from netfit.analog import AdditiveGaussian
        >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        >>> trainer = Trainer(lambda: nn.Linear(3, 2), (x, (x[:, 0] > 0).long()), epochs=20, lr=0.1, batch_size=16)
        >>> model = trainer(Policy({"*": AdditiveGaussian(0.5)}), seed=1)
        >>> model.training
        False
    """

    build: Callable[[], nn.Module]
    data: tuple[Tensor, Tensor]
    epochs: int
    lr: float = 1e-3
    batch_size: int = 128
    weight_decay: float = 0.0
    optimizer: str = "adam"

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.epochs * self._epoch_steps

    @property
    def _epoch_steps(self) -> int:
        return max(1, len(self.data[0]) // self.batch_size)

    @property
    def example(self) -> Tensor:
        """Two of the inputs."""
        return self.data[0][:2]

    def identity(self) -> dict[str, Any]:
        """Everything a result depends on, as plain values: settings, and digests of network and data."""
        skipped = ("build", "data")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in skipped}
        state = self.fresh(seed=0).state_dict()
        return values | {"network": [list(state), tensors_digest(state.values())], "data": tensors_digest(self.data)}

    def fresh(self, seed: int) -> nn.Module:
        """The network before training."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            return self.build()

    def __call__(
        self,
        policy: Policy | None = None,
        *,
        seed: int,
        schedule: Schedule | None = None,
        checkpoint: str | Path | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> nn.Module:
        """Train one network, with what the policy does to it (noise, rounding) installed.

        Args:
            policy: None trains the network as it is.
            seed: of weights, shuffling and noise.
            schedule: moves the amplitude of all noise during training.
            checkpoint: folder from which a killed training goes on.
            progress: as in `netfit.train.fit`.

        Returns:
            The network in evaluation mode, hooks and all.
        """
        model = self.fresh(seed)
        model = apply(model, policy, self.example) if policy else model
        injection = Injection(model) if any(isinstance(m, NoiseHook) for m in model.modules()) else None
        if injection:
            injection.draw_from("pool")

        def on_epoch(epoch: int, _: nn.Module) -> None:
            if injection and schedule:
                injection.follow(schedule, epoch * self._epoch_steps)

        fit(
            model, self.data, epochs=self.epochs, lr=self.lr, batch_size=self.batch_size, optimizer=self.optimizer,
            weight_decay=self.weight_decay, seed=seed, precision="fp32", checkpoint=checkpoint, progress=progress,
            on_epoch=on_epoch,
        )  # fmt: skip
        if injection:
            injection.follow(None)
            injection.draw_from("exact")
        return model
