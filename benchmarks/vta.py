"""The simulated VTA against a published board, against torch, and against the clock: ``python -m benchmarks.vta``."""

import time
from typing import Any

import numpy as np
import torch

from benchmarks._common import record
from netfit.errors import TargetError
from netfit.targets.vta import Config, Conv, Knobs, Program, all_knobs, check, lower, simulate, times, why_invalid
from netfit.targets.vta._simulator import execute
from netfit.targets.vta._timing import BOARD_ROWS
from netfit.targets.vta.layout import pack_image, pack_weight, unpack_image

PROGRAMS, TOKENS = 500, 100
MOST_MAPE, LEAST_RANK, LEAST_RATE, MOST_FUNCTIONAL_S = 0.05, 0.98, 20e6, 0.2


def _row(check: str, value: float, goal: float, most: bool = False) -> dict[str, Any]:
    return {"check": check, "value": value, "goal": goal, "met": value <= goal if most else value >= goal}


def board() -> list[dict[str, Any]]:
    """Errors on the ten measured convolutions."""
    found = np.array([times(lower(r.conv, r.knobs, Config())).seconds for r in BOARD_ROWS])
    real = np.array([r.seconds for r in BOARD_ROWS])
    ranks = [np.argsort(np.argsort(x)) for x in (found, real)]
    errors = np.abs(found / real - 1)
    return [
        _row("mean error of cycles on ten measured convolutions", float(errors.mean()), MOST_MAPE, most=True),
        _row("rank correlation with the board", float(np.corrcoef(*ranks)[0, 1]), LEAST_RANK),
        _row("largest single error", float(errors.max()), 1.0, most=True),
    ]


def _random(rng: np.random.Generator) -> tuple[Config, Conv, Knobs, tuple[int, ...]]:
    core = Config.from_text(str(rng.choice(["1x16", "4x8"])))
    while True:
        n, c, k, h, w = (int(rng.integers(1, most)) for most in (4, 50, 50, 15, 15))
        r, s, sh, sw = (int(rng.integers(1, most)) for most in (5, 5, 4, 4))
        ph, pw = (int(v) for v in rng.integers(0, 4, 2))
        if h + 2 * ph < r or w + 2 * pw < s:
            continue
        conv = Conv.of(core, n=n, c=c, h=h, w=w, k=k, r=r, s=s, stride=(sh, sw), padding=(ph, pw))
        valid = [q for q in all_knobs(conv) if why_invalid(conv, q, core) is None]
        if valid:
            return core, conv, valid[rng.integers(len(valid))], (n, c, k, h, w, r, s, sh, sw, ph, pw)


def exact() -> tuple[int, int, int]:
    """Programs that compute what torch computes, removed tokens that were noticed, and tokens removed."""
    rng, right, noticed, removed = np.random.default_rng(0), 0, 0, 0
    for number in range(PROGRAMS):
        core, conv, knobs, (n, c, k, h, w, r, s, sh, sw, ph, pw) = _random(rng)
        x, wt = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((n, c, h, w), (k, c, r, s)))
        program = lower(conv, knobs, core)
        words, _ = simulate(program, pack_image(x, core), pack_weight(wt, core))
        out = unpack_image(words, (n, k, conv.oh, conv.ow), core)
        y = torch.nn.functional.conv2d(torch.tensor(x).double(), torch.tensor(wt).double(), None, (sh, sw), (ph, pw))
        right += bool((out == np.clip(y.long().numpy() >> 8, 0, 127)).all())
        if number >= TOKENS:
            continue
        for name in ("pop_prev", "pop_next", "push_prev", "push_next"):
            for i in np.flatnonzero(program.instructions[name]):
                rows = program.instructions.copy()
                rows[name][i] = 0
                removed += 1
                try:
                    check(Program(core, rows, program.uops, program.words))
                except TargetError:
                    noticed += 1
                if removed % 40 == 39:  # the rest of a program repeats itself
                    break
    return right, noticed, removed


def speed() -> list[dict[str, Any]]:
    """Instructions a second of the cycle model, and one convolution of ResNet-18 in full."""
    long = lower(Conv(112, 112, 4, 16, 3, 3, pad_h=1, pad_w=1), Knobs(4, 16, 1, 1), Config())
    times(long)
    spent = []
    for _ in range(20):
        start = time.process_time()
        times(long)
        spent.append(time.process_time() - start)
    layer, rng = Conv(56, 56, 4, 4, 3, 3, pad_h=1, pad_w=1), np.random.default_rng(0)
    program = lower(layer, Knobs(8, 56, 1, 2, 2, 1), Config())
    inp = rng.integers(-128, 128, (program.words["inp"], 1, 16)).astype(np.int8)
    wgt = rng.integers(-128, 128, (program.words["wgt"], 16, 16)).astype(np.int8)
    runs = []
    for _ in range(5):
        start = time.process_time()
        execute(program, inp, wgt)
        runs.append(time.process_time() - start)
    return [
        _row(f"instructions a CPU second of the cycle model, {len(long)} of them", len(long) / min(spent), LEAST_RATE),
        _row("CPU s of a 56x56x64x64 3x3 convolution", min(runs), MOST_FUNCTIONAL_S, most=True),
    ]


def main() -> None:
    """Print and keep one row per figure."""
    torch.set_num_threads(1)
    right, noticed, removed = exact()
    rows = [
        *board(),
        _row("random programs bit-exact", float(right), float(PROGRAMS)),
        _row(f"removed tokens noticed, of {removed}", float(noticed), float(removed)),
        *speed(),
    ]
    record("vta", rows, programs=PROGRAMS)


if __name__ == "__main__":
    main()
