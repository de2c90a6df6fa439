"""One training step as an object: what everything in this room looks at."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netfit.errors import ConfigError

from ._saver import tensors_in

__all__ = ["BACKWARD", "TrainingStep", "undisturbed"]

BACKWARD = "netfit: backward"  # name of the mark between the passes in a profile


@dataclass(frozen=True)
class TrainingStep:
    """Forward pass, loss, backward pass and update; calling it does them once.

    Args:
        model: as it trains; call ``model.train()`` first.
        inputs: what the model is called with; batches along dimension 0.
        targets: what the loss gets after the model's output.
        loss_fn: ``loss_fn(output, *targets)``; the mean square of the output when None.
        optimizer: makes the update; gradients are only made and dropped when None.

    Raises:
        ConfigError: there is no input, an empty batch, or nothing to train.

    Example:
        >>> net = nn.Linear(4, 2)
        >>> step = TrainingStep(net, torch.randn(8, 4), torch.zeros(8, dtype=torch.long), nn.functional.cross_entropy)
        >>> step.batch_size, step.resized(2).batch_size
        (8, 2)
    """

    model: nn.Module
    inputs: Tensor | tuple[Tensor, ...]
    targets: Tensor | tuple[Tensor, ...] = ()
    loss_fn: Callable[..., Tensor] | None = None
    optimizer: torch.optim.Optimizer | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, Tensor) else tuple(given))
        if not self.inputs or not all(t.ndim and len(t) for t in (*self.inputs, *self.targets)):
            raise ConfigError("a training step needs a batch: an input is missing or empty")
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ConfigError(f"{type(self.model).__name__} has no parameter that is trained")

    @property
    def batch_size(self) -> int:
        """Samples of a step."""
        return len(self.inputs[0])

    def resized(self, batch_size: int) -> "TrainingStep":
        """The same with the batch repeated or cut to another size."""

        def resize(t: Tensor) -> Tensor:
            rows = torch.arange(batch_size, device=t.device) % len(t)
            return t[rows]

        inputs, targets = (tuple(resize(t) for t in group) for group in (self.inputs, self.targets))
        return replace(self, inputs=inputs, targets=targets)

    def loss(self) -> Tensor:
        """Forward pass and loss."""
        out = self.model(*self.inputs)
        if self.loss_fn is not None:
            return self.loss_fn(out, *self.targets)
        return torch.stack([t.float().square().mean() for t in tensors_in(out) if t.is_floating_point()]).sum()

    def __call__(self) -> None:
        """One step; without an optimizer the gradients of the last one are dropped first."""
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self.loss()
        with torch.profiler.record_function(BACKWARD):
            pass
        loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()

    def gradients(self) -> dict[str, Tensor]:
        """Gradient of each trained parameter, by name; the parameters' own ``grad`` stays as it is."""
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(self.loss(), list(trained.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(trained.items(), found, strict=True)
        }

    def held(self) -> dict[str, int]:
        """Bytes that stay from step to step: parameters, buffers, optimizer state and the batch.

        An optimizer that has made no step yet is counted with the state it will have.
        """
        parameters = list(self.model.parameters())
        return {
            "parameters": _bytes(parameters),
            "buffers": _bytes(self.model.buffers()),
            "optimizer": _optimizer_bytes(self.optimizer),
            "batch": _bytes((*self.inputs, *self.targets)),
        }


@contextmanager
def undisturbed(step: TrainingStep) -> Iterator[None]:
    """Whatever steps are made inside, buffers, gradients and random state are as before; parameters are not."""
    model = step.model
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    gradients = [(p, p.grad) for p in model.parameters()]
    devices = sorted({t.device.index or 0 for t in step.inputs if t.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for name, b in model.named_buffers():
                b.copy_(buffers[name])
        for p, g in gradients:
            p.grad = g


def _bytes(tensors: Any) -> int:
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _optimizer_bytes(optimizer: torch.optim.Optimizer | None) -> int:
    if optimizer is None:
        return 0
    states = [t for state in optimizer.state.values() for t in tensors_in(state)]
    if states:
        return _bytes(states)
    total = 0
    for group in optimizer.param_groups:  # what one parameter costs tells what all will
        probe = nn.Parameter(torch.zeros(64))
        probe.grad = torch.zeros(64)
        settings = {k: v for k, v in group.items() if k != "params" and k in optimizer.defaults}
        trial = type(optimizer)([probe], **settings)
        trial.step()
        share = sum(t.numel() for state in trial.state.values() for t in tensors_in(state) if t.numel() > 1) / 64
        total += round(share * sum(p.nbytes for p in group["params"] if p.requires_grad))
    return total
