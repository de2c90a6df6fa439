"""How long instructions take: seven numbers, fitted to times of a real board."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from netfit.errors import ConfigError

from ._config import Config
from ._conv import Conv, Knobs
from ._lower import lower

__all__ = ["BOARD_ROWS", "Timing", "calibrate"]


@dataclass(frozen=True)
class Timing:
    """Cycles of each kind of instruction.

    A load or store takes ``dma_start + rows * (dma_row + bytes of a row / dma_bytes_per_cycle)`` and one cycle for
    every word of padding; a product ``gemm_start`` and one cycle for each step, more where an accumulator is written
    again within ``mac_latency`` steps; a vector operation ``gemm_start + alu_step * steps``. Instruction i starts no
    earlier than ``fetch * i``. The host adds ``host_s`` to every program.

    The defaults are what `calibrate` finds on `BOARD_ROWS`; ``fetch`` and ``mac_latency`` are assumed.
    """

    dma_start: float = 26.47
    dma_row: float = 35.66
    dma_bytes_per_cycle: float = 3.746
    gemm_start: float = 37.91
    alu_step: float = 0.047
    fetch: float = 2.0
    mac_latency: float = 4.0
    host_s: float = 2.636e-4

    def __post_init__(self) -> None:
        if not (min(astuple(self)) >= 0 and self.dma_bytes_per_cycle > 0 and np.isfinite(astuple(self)).all()):
            raise ConfigError(f"{self}: all must be finite and not negative, the bandwidth positive")


@dataclass(frozen=True)
class BoardRow:
    """One measured convolution: time of the whole operator with shift, clip and int8 store."""

    conv: Conv
    knobs: Knobs
    seconds: float


def _row(size: int, ci: int, co: int, taps: int, pad: int, stride: int, knobs: Sequence[int], ms: float) -> BoardRow:
    conv = Conv(size, size, ci, co, taps, taps, stride, stride, pad, pad)
    return BoardRow(conv, Knobs(*knobs), ms / 1e3)


# ResNet-18 on a PYNQ board, core 1x16 at 100 MHz: the pre-tuned log that TVM published in July 2019.
BOARD_ROWS = (
    _row(14, 16, 32, 3, 1, 2, (7, 7, 1, 16, 2, 1), 3.994),
    _row(7, 32, 32, 3, 1, 1, (7, 7, 1, 16, 2, 1), 7.348),
    _row(28, 8, 16, 3, 1, 2, (14, 14, 1, 4, 2, 1), 2.669),
    _row(14, 16, 16, 3, 1, 1, (14, 14, 1, 4, 2, 1), 4.934),
    _row(56, 4, 8, 3, 1, 2, (7, 28, 1, 4, 2, 1), 2.966),
    _row(28, 8, 8, 3, 1, 1, (14, 28, 1, 2, 1, 2), 5.183),
    _row(56, 4, 4, 3, 1, 1, (8, 56, 1, 2, 2, 1), 5.699),
    _row(56, 4, 8, 1, 0, 2, (7, 28, 1, 4, 1, 2), 1.349),
    _row(28, 8, 16, 1, 0, 2, (7, 14, 1, 8, 2, 1), 1.029),
    _row(14, 16, 32, 1, 0, 2, (7, 7, 1, 16, 2, 1), 1.081),
)
_FITTED = ("dma_start", "dma_row", "dma_bytes_per_cycle", "gemm_start", "alu_step", "host_s")
_LOW, _HIGH = (10, 10, 2, 5, 0, 1e-4), (60, 80, 8, 40, 1.2, 4e-4)


def calibrate(rows: Sequence[BoardRow] = BOARD_ROWS, config: Config | None = None) -> Timing:
    """Least squares of relative errors over measured convolutions.

    Args:
        rows: measured times.
        config: the accelerator they were measured on.

    Returns:
        The fitted timing; six numbers, so ten rows leave little room: a vector operation's step is hardly determined.

    Raises:
        ConfigError: fewer rows than numbers, or a row that cannot run there.
    """
    from scipy.optimize import least_squares

    from ._simulator import times

    if len(rows) < len(_FITTED):
        raise ConfigError(f"{len(rows)} measured times cannot determine {len(_FITTED)} numbers")
    core = config or Config()
    programs = [lower(row.conv, row.knobs, core) for row in rows]
    start = np.array([getattr(Timing(), name) for name in _FITTED])
    scale = np.array([10, 10, 1, 10, 0.5, 1e-4])

    def made(x: np.ndarray) -> Timing:
        return Timing(**dict(zip(_FITTED, map(float, np.clip(x * scale, _LOW, _HIGH)), strict=True)))

    def errors(x: np.ndarray) -> np.ndarray:
        timing = made(x)
        return np.array([times(p, timing).seconds / r.seconds - 1 for p, r in zip(programs, rows, strict=True)])

    bounds = np.array(_LOW) / scale, np.array(_HIGH) / scale
    # Times are sums of maxima of ceilings: slopes are taken over wide steps.
    found = least_squares(
        errors, start / scale, bounds=bounds, diff_step=0.02, loss="soft_l1", f_scale=0.03, max_nfev=200
    )
    return made(found.x)
