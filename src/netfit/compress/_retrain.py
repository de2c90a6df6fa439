"""Retrain a compressed network, taught by the uncompressed one: first its structure, then its rounding."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netfit.surgery import Quantization, calibrate, plain
from netfit.train import History, fit

__all__ = ["retrain"]

Batch = tuple[Tensor, Tensor]
Progress = Callable[[dict[str, Any]], None]
GENTLE_BITS = 8  # from here on rounding disturbs a network so little that it can come last
ROUNDED_SHARE = 5  # one epoch in this many is then trained with rounding
ROUNDED_LR = 10  # and at this fraction of the learning rate
SLOW = 5  # epochs of a cycle from which its last one is slow: at 2, the loss exploded once all this was frozen
CALIBRATED = 768


def retrain(
    model: nn.Module,
    data: Batch,
    *,
    teacher: nn.Module | None,
    epochs: int,
    lr: float,
    batch_size: int,
    weight_decay: float,
    seed: int,
    augment: str | None = None,
    validation: Batch | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> History:
    """Recover accuracy after pruning and quantization, in place.

    What is rounded to 8 bits and more first trains without rounding, which costs a third of the time a step, and then
    one epoch in five as it will run, at a tenth of the learning rate. Fewer bits are rounded from the first step. In
    the last epoch the activation scales and BatchNorm statistics are frozen, so that the final weights fit the very
    constants that are exported; not so in a cycle of few epochs, whose last one still learns too fast for that.

    Args:
        model: result of `apply` (or of a search), calibrated.
        data: training inputs (n, ...) and labels (n,).
        teacher: network whose outputs are distilled (temperature 4, half of the loss); None trains on labels alone.
        epochs, lr, batch_size, weight_decay, seed, augment: as for `netfit.train.fit`.
        validation, checkpoint, progress: likewise; the checkpoint of the rounded epochs is beside the other.

    Returns:
        The records of all epochs.

    Raises:
        JobError: the loss is not finite.
    """
    part = partial(
        fit, train=data, batch_size=batch_size, weight_decay=weight_decay, seed=seed, augment=augment, teacher=teacher,
        validation=validation,
    )  # fmt: skip
    state = Quantization.of(model)
    rounded = epochs
    if state is not None and _gentle(state):
        rounded = max(1, epochs // ROUNDED_SHARE)
    first = None
    if rounded < epochs:
        smooth = plain(model)
        shown = _shown(progress, 0, epochs)
        first = part(smooth, epochs=epochs - rounded, lr=lr, checkpoint=checkpoint, progress=shown)
        model.load_state_dict(smooth.state_dict(), strict=False)
        calibrate(model, data[0][:CALIBRATED].split(batch_size))
        checkpoint = checkpoint and checkpoint.with_name(f"{checkpoint.name}-rounded")
        lr /= ROUNDED_LR

    def settle(epoch: int, network: nn.Module) -> None:
        if epoch < rounded - 1 or (first is None and epochs < SLOW):
            return
        state = Quantization.of(network)
        if state is not None:
            state.freeze()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    shown = _shown(progress, epochs - rounded, epochs)
    last = part(model, epochs=rounded, lr=lr, checkpoint=checkpoint, progress=shown, on_epoch=settle)
    return last if first is None else _joined(first, last)


def _gentle(state: Quantization) -> bool:
    return all(min(pair) >= GENTLE_BITS for pair in state.widths().values())


def _shown(progress: Progress | None, before: int, epochs: int) -> Progress | None:
    """The progress of a part, told as that of the whole."""
    if progress is None:
        return None
    return lambda facts: progress({**facts, "epoch": facts["epoch"] + before, "epochs": epochs})


def _joined(first: History, last: History) -> History:
    columns = {f.name: getattr(first, f.name) + getattr(last, f.name) for f in fields(History) if f.name != "precision"}
    return History(**columns, precision=last.precision)
