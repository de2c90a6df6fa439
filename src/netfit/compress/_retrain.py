"""Retrain a compressed network: at its own precision from the first step, taught by the uncompressed one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netfit.surgery import Quantization
from netfit.train import History, fit

__all__ = ["retrain"]

Batch = tuple[Tensor, Tensor]


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
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Recover accuracy after pruning and quantization, in place.

    The network trains as it will run: fake quantization is on throughout, and in the last epoch the activation scales
    and BatchNorm statistics are frozen, so that the final weights fit the very constants that are exported.

    Args:
        model: result of `apply` (or of a search), calibrated.
        data: training inputs (n, ...) and labels (n,).
        teacher: network whose outputs are distilled (temperature 4, half of the loss); None trains on labels alone.
        epochs, lr, batch_size, weight_decay, seed, augment: as for `netfit.train.fit`.
        validation, checkpoint, progress: likewise.

    Raises:
        JobError: the loss is not finite.
    """

    def settle(epoch: int, network: nn.Module) -> None:
        if epoch < epochs - 1 or epochs == 1:
            return
        state = Quantization.of(network)
        if state is not None:
            state.freeze()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    return fit(
        model,
        data,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        weight_decay=weight_decay,
        seed=seed,
        augment=augment,
        teacher=teacher,
        validation=validation,
        checkpoint=checkpoint,
        progress=progress,
        on_epoch=settle,
    )
