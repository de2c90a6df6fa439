"""What is known of a loop nest before it is lowered: memories, bursts, loops, and an estimate of its time."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from ._config import Config
from ._conv import Conv, Knobs
from ._timing import Timing

__all__ = ["FEATURES", "estimate", "features"]

FEATURES = (
    "log_tile_h", "log_tile_w", "log_tile_ci", "log_tile_co", "log_oc_nthread", "log_h_nthread",
    "whole_h", "whole_w", "whole_ci", "whole_co", "log_inp_words", "log_wgt_words", "log_acc_words",
    "log_dma_rows", "log_dma_bytes", "log_uops", "log_counted", "halo", "log_tiles", "log_steps",
)  # fmt: skip


def _columns(conv: Conv, knobs: Sequence[Knobs]) -> dict[str, NDArray[np.float64]]:
    h, w, ci, co, oc, hn = np.array([astuple(k) for k in knobs], np.float64).reshape(-1, 6).T
    rows, cols = (h - 1) * conv.stride_h + conv.kh, (w - 1) * conv.stride_w + conv.kw
    tiles = conv.batch * (conv.oh / h) * (conv.ow / w) * (conv.co / co)
    steps, taps = conv.ci / ci, conv.kh * conv.kw
    return {
        "h": h, "w": w, "ci": ci, "co": co, "oc": oc, "hn": hn, "rows": rows, "cols": cols, "tiles": tiles,
        "steps": steps, "inp": rows * cols * ci * hn, "wgt": co * ci * taps * oc, "acc": h * w * co * oc * hn,
    }  # fmt: skip


def _moved(
    conv: Conv, config: Config, c: dict[str, NDArray[np.float64]], swap: bool = False
) -> tuple[NDArray[np.float64], ...]:
    """Rounds of image and weight loads, and the bytes and rows of all bursts."""
    taps = conv.kh * conv.kw
    images, weights = c["tiles"] * c["steps"] / c["oc"], c["tiles"] * c["steps"] / c["hn"]
    size = {name: config.word_bytes(name) for name in ("inp", "wgt", "out")}
    if swap:
        size["inp"], size["wgt"] = size["wgt"], size["inp"]
    count = images * c["rows"] * c["ci"] + weights * c["co"] + c["tiles"] * c["co"] * c["h"]
    moved = (
        images * c["rows"] * c["cols"] * c["ci"] * size["inp"]
        + weights * c["co"] * c["ci"] * taps * size["wgt"]
        + c["tiles"] * c["co"] * c["h"] * c["w"] * size["out"]
    )
    return images, weights, moved, count


def features(conv: Conv, knobs: Sequence[Knobs], config: Config) -> NDArray[np.float64]:
    """Columns for a model of time or validity.

    Args:
        conv: what is computed.
        knobs: loop nests, valid or not.
        config: the accelerator.

    Returns:
        (nests, len(FEATURES)).
    """
    c = _columns(conv, knobs)
    _, _, moved, count = _moved(conv, config, c)
    loops = np.stack([c["ci"], c["w"], 0 * c["h"] + conv.kw, 0 * c["h"] + conv.kh, c["co"], c["h"]], 1)
    rank = (loops > 1).cumsum(1)
    counted = np.where((loops > 1) & (rank <= 2), loops, 1).prod(1)
    halo = c["rows"] * c["cols"] / (c["h"] * conv.stride_h * c["w"] * conv.stride_w)
    logs = [c[n] for n in ("h", "w", "ci", "co", "oc", "hn")]
    whole = [c["h"] == conv.oh, c["w"] == conv.ow, c["ci"] == conv.ci, c["co"] == conv.co]
    sizes = [c["inp"], c["wgt"], c["acc"], count, moved, loops.prod(1) / counted, counted]
    return np.stack(
        [*map(np.log2, logs), *whole, *map(np.log2, sizes), halo, np.log2(c["tiles"]), np.log2(c["steps"])], 1
    ).astype(np.float64)


def estimate(
    conv: Conv, knobs: Sequence[Knobs], config: Config, timing: Timing | None = None, swap: bool = False
) -> NDArray[np.float64]:
    """Cycles by traffic and work alone: what loads take, what products take, overlapped by virtual threads.

    No order, no token and no stall is looked at, so it ranks; `times` counts.

    Args:
        conv: what is computed.
        knobs: loop nests.
        config: the accelerator.
        timing: of its instructions.
        swap: the image is the right operand of the product.

    Returns:
        (nests,) cycles.
    """
    t, c = timing or Timing(), _columns(conv, knobs)
    images, weights, moved, count = _moved(conv, config, c, swap)
    bursts = images + weights + c["tiles"]
    dma = bursts * t.dma_start + count * t.dma_row + moved / t.dma_bytes_per_cycle
    work = conv.products + c["tiles"] * (c["steps"] + 4) * t.gemm_start + 3 * t.alu_step * c["acc"] * c["tiles"]
    threaded = c["oc"] * c["hn"] > 1
    return np.where(threaded, np.maximum(dma, work) + np.minimum(dma, work) / (c["steps"] + 1), dma + work)
