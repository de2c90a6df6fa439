"""Training to the end: one function that gives the same weights for the same seed, killed or not."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netfit.errors import ConfigError, JobError
from netfit.seeding import derive

from ._augment import Augment, augmentation
from ._check import check_fits, check_numbers
from ._checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from ._evaluate import evaluate, hits, modes
from ._optimizer import one_cycle, optimizer_of
from ._precision import autocast, memory_format, resolve_precision

DISTILLATION_TEMPERATURE = 4.0
REPORT_EVERY_S = 0.3

Progress = Callable[[dict[str, Any]], None]
OnEpoch = Callable[[int, nn.Module], None]
Objective = Callable[[nn.Module, Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class History:
    """What a fit went through, one entry an epoch.

    Args:
        loss: mean training loss.
        accuracy: accuracy on the augmented training samples while training, 0 to 1.
        validation: accuracy on the validation samples after the epoch; empty when none were given.
        seconds: wall time of each epoch.
        precision: ``"bf16"`` or ``"fp32"``, as resolved.
    """

    loss: tuple[float, ...]
    accuracy: tuple[float, ...]
    validation: tuple[float, ...]
    seconds: tuple[float, ...]
    precision: str


@dataclass(frozen=True)
class Job:
    """Everything an epoch needs that does not change between epochs."""

    model: nn.Module
    teacher: nn.Module | None
    optimizer: torch.optim.Optimizer
    x: Tensor
    y: Tensor
    augment: Augment | None
    epochs: int
    batch_size: int
    lr: float
    seed: int
    precision: str
    layout: torch.memory_format
    validation: tuple[Tensor, Tensor] | None
    progress: Progress | None
    on_epoch: OnEpoch | None
    objective: Objective | None = None

    @property
    def steps(self) -> int:
        """Steps an epoch; the tail that does not fill a batch waits for another epoch's shuffle."""
        return max(1, len(self.x) // self.batch_size)


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    weight_decay: float,
    seed: int,
    optimizer: str = "sgd",
    augment: str | Augment | None = None,
    teacher: nn.Module | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    objective: Objective | None = None,
    patience: int | None = None,
) -> History:
    """Train a classifier in place under a one-cycle learning rate.

    The result depends on the arguments and the seed only, not on having been killed and resumed. Frozen
    parameters stay as they are. The model is left in evaluation mode.

    Args:
        model: maps (batch, ...) to logits (batch, classes).
        train: inputs (n, ...) float32, and labels (n,) int64 or, for networks whose outputs are yes or no each,
            probabilities (n, outputs) float32: then the loss is the binary cross entropy.
        epochs: passes over the samples, in all (a resumed fit does the rest of them).
        lr: highest learning rate of the cycle.
        batch_size: samples a step.
        weight_decay: L2 penalty on matrices and kernels.
        seed: of shuffling, augmentation and dropout.
        optimizer: ``"sgd"`` with Nesterov momentum 0.9, or ``"adam"``.
        augment: ``"crop"``, ``"crop-flip"``, or a function of (batch, generator).
        teacher: adds distillation: half the loss is the cross entropy with the labels, half is T^2 KL(teacher ||
            model) at temperature T = 4. "Distilling the knowledge in a neural network", 2015.
        validation: inputs and labels that are scored after each epoch.
        precision: ``"fp32"``, ``"bf16"`` (autocast), or ``"auto"``: bf16 where the processor has units for it.
        checkpoint: folder that holds the state after each epoch, and from which a killed fit goes on.
        progress: called with a dict (epoch counted from 1, epochs, step, steps, loss, accuracy, lr, and
            validation at the end of an epoch), a few times a second at most.
        on_epoch: called with (epoch counted from 0, model in training mode) before each epoch; a resumed fit
            calls it for the epochs already done too, before it loads the weights.
        objective: replaces the cross entropy: called with (model, inputs, labels, share of all steps done), returns
            the loss and the logits (batch, classes) that the accuracy is counted from.
        patience: stop after so many epochs in which the validation accuracy was no better than its best so far.

    Raises:
        ConfigError: an argument cannot be used, or the checkpoint belongs to another fit.
        JobError: the loss is not finite; the checkpoint still holds the last good epoch.

    >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> train = x, (x[:, 0] > 0).long()
    >>> fit(nn.Linear(3, 2), train, epochs=9, lr=0.5, batch_size=8, weight_decay=0, seed=0).accuracy[-1] > 0.9
    True
    """
    precision = resolve_precision(precision)
    check_numbers(epochs=epochs, lr=lr, batch_size=batch_size, weight_decay=weight_decay)
    if patience is not None and (patience < 1 or validation is None):
        raise ConfigError(f"patience={patience} needs validation samples and at least 1 epoch")
    x, y = train
    listening = modes(teacher) if teacher else nullcontext()
    with memory_format(model, x) as layout, torch.random.fork_rng(devices=[]), listening:
        check_fits(model, x, y, teacher)
        job = Job(
            model, teacher, optimizer_of(optimizer, model, weight_decay), x, y, augmentation(augment, x), epochs,
            min(batch_size, len(x)), lr, seed, precision, layout, validation, progress, on_epoch, objective,
        )  # fmt: skip
        arguments = _arguments(job, weight_decay, optimizer)
        records = _resume(job, Path(checkpoint), arguments) if checkpoint else []
        for epoch in range(len(records), epochs):
            if patience is not None and _stalled(records, patience):
                break
            records.append(_epoch(job, epoch))
            if checkpoint:
                save_checkpoint(Path(checkpoint), arguments, records, model, job.optimizer)
    model.eval()
    columns = {k: tuple(r[k] for r in records if k in r) for k in ("loss", "accuracy", "validation", "seconds")}
    return History(**columns, precision=precision)


def _stalled(records: list[dict[str, Any]], patience: int) -> bool:
    """Whether the last epochs brought nothing over those before them."""
    scores = [record["validation"] for record in records]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


def _epoch(job: Job, epoch: int) -> dict[str, Any]:
    """One epoch and its record."""
    start = time.perf_counter()
    torch.manual_seed(derive(job.seed, "epoch", epoch))  # dropout draws from the global generator
    _prepare(job, epoch)
    record = _train_epoch(job, epoch)
    if not all(parameter.isfinite().all() for parameter in job.model.parameters()):
        raise JobError(f"a weight is not finite after epoch {epoch + 1} of {job.epochs}; lower the learning rate")
    if job.validation:
        record["validation"] = evaluate(job.model, *job.validation, precision=job.precision)
    record["seconds"] = time.perf_counter() - start
    if job.progress:
        last = {"step": job.steps, "lr": one_cycle((epoch + 1) * job.steps - 1, job.epochs * job.steps, job.lr)}
        job.progress({"epoch": epoch + 1, "epochs": job.epochs, "steps": job.steps, **last, **record})
    return record


def _train_epoch(job: Job, epoch: int) -> dict[str, Any]:
    """Every step of one epoch; returns mean loss and accuracy."""
    generator = torch.Generator().manual_seed(derive(job.seed, "samples", epoch))
    order = torch.randperm(len(job.x), generator=generator)
    loss_sum = correct = 0.0
    reported = time.monotonic()
    for step in range(job.steps):
        rows = order[step * job.batch_size : (step + 1) * job.batch_size]
        x, y = job.x[rows], job.y[rows]
        if job.augment:
            x = job.augment(x, generator)
        done = epoch * job.steps + step
        lr = one_cycle(done, job.epochs * job.steps, job.lr)
        loss, right = _step(job, x.contiguous(memory_format=job.layout), y, lr, done / (job.epochs * job.steps))
        if not math.isfinite(loss):
            raise JobError(
                f"training loss is {loss} in epoch {epoch + 1} of {job.epochs}, step {step + 1} of {job.steps}, "
                f"at learning rate {lr:.3g}; lower the learning rate, or look for non-finite inputs"
            )
        loss_sum += loss
        correct += right
        if job.progress and time.monotonic() - reported > REPORT_EVERY_S:
            reported = time.monotonic()
            seen = {"loss": loss_sum / (step + 1), "accuracy": correct / ((step + 1) * len(rows)), "lr": lr}
            job.progress({"epoch": epoch + 1, "epochs": job.epochs, "step": step + 1, "steps": job.steps, **seen})
    return {"loss": loss_sum / job.steps, "accuracy": correct / (job.steps * job.batch_size)}


def _step(job: Job, x: Tensor, y: Tensor, lr: float, share: float) -> tuple[float, float]:
    """One update; returns the loss before it and the number of right answers."""
    for group in job.optimizer.param_groups:
        group["lr"] = lr
    if job.objective is not None:
        with autocast(job.precision):
            loss, out = job.objective(job.model, x, y, share)
    else:
        loss, out = _cross_entropy(job, x, y)
    job.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    job.optimizer.step()
    return loss.item(), hits(out, y)


def _cross_entropy(job: Job, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, half of it from the teacher where there is one, and the logits."""
    with autocast(job.precision):
        out = job.model(x)
        target = None
        if job.teacher is not None:
            with torch.no_grad():
                target = job.teacher(x)
    loss = F.cross_entropy(out.float(), y) if y.dim() == 1 else F.binary_cross_entropy_with_logits(out.float(), y)
    if target is not None:
        loss = 0.5 * loss + 0.5 * distillation(out.float(), target.float())
    return loss, out


def distillation(out: Tensor, target: Tensor) -> Tensor:
    """T^2 KL(target || out) of softened classes; T^2 keeps the gradient's size independent of T."""
    T = DISTILLATION_TEMPERATURE
    soft = F.log_softmax(out / T, 1), F.log_softmax(target / T, 1)
    return T**2 * F.kl_div(*soft, reduction="batchmean", log_target=True)


def _prepare(job: Job, epoch: int) -> None:
    job.model.train()
    if job.on_epoch:
        job.on_epoch(epoch, job.model)


def _resume(job: Job, path: Path, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of the epochs already done; their state is loaded into the model and the optimizer."""
    saved = read_checkpoint(path, arguments)
    if saved is None:
        return []
    records: list[dict[str, Any]] = saved.meta["records"]
    for epoch in range(len(records)):  # what a hook froze or switched is not in the tensors
        _prepare(job, epoch)
    load_checkpoint(saved, job.model, job.optimizer)
    return records


def _arguments(job: Job, weight_decay: float, optimizer: str) -> dict[str, Any]:
    """What a resumed fit must share with the killed one for the result to be the same."""
    name = getattr(job.augment, "__name__", None) or (job.augment and type(job.augment).__name__)
    return {
        "epochs": job.epochs,
        "lr": job.lr,
        "batch_size": job.batch_size,
        "weight_decay": weight_decay,
        "seed": job.seed,
        "augment": name,
        "teacher": job.teacher is not None,
        "samples": len(job.x),
        "precision": job.precision,
        **({} if optimizer == "sgd" else {"optimizer": optimizer}),  # checkpoints of before there was a choice
    }
