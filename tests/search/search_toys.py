"""Cheap evaluations that worker processes can import."""

import os
import signal
import time
from pathlib import Path

from netfit.errors import TargetError
from netfit.search import Categorical, Evaluation, Float, Goal, IntChoice, Trial

SPACE = {
    "width": IntChoice((8, 16, 32, 64)),
    "depth": IntChoice((1, 2, 3, 5)),
    "format": Categorical(("fp32", "int8")),
    "rate": Float(0.0, 1.0),
}
GOAL = Goal(constraints=("cost",))


def evaluate(trial: Trial) -> Evaluation:
    """More capacity is better, half of the greatest cost is allowed; deterministic in params and seed."""
    p = trial.params
    bits = 8 if p["format"] == "int8" else 32
    value = p["width"] ** 0.5 * p["depth"] + p["rate"] + (trial.seed % 1000) * 1e-6 - 0.1 * (bits == 8)
    return Evaluation(value, {"cost": p["width"] * p["depth"] * bits / (64 * 5 * 32) - 0.5}, {"bits": bits})


def fails_on_narrow(trial: Trial) -> Evaluation:
    if trial.params["width"] == 8:
        raise TargetError("too narrow for this target")
    return evaluate(trial)


def breaks_on_narrow(trial: Trial) -> Evaluation:
    return Evaluation(1 / (trial.params["width"] - 8), {"cost": 0.0})


def dies_on_narrow(trial: Trial) -> Evaluation:
    if trial.params["width"] == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(trial)


class Logged:
    """Notes each evaluation in a file before it is made."""

    def __init__(self, log: Path, pause_s: float = 0.0) -> None:
        self.log, self.pause_s = log, pause_s

    def __call__(self, trial: Trial) -> Evaluation:
        with self.log.open("a") as file:
            file.write(f"{trial.seed}\n")
        time.sleep(self.pause_s)
        return evaluate(trial)


class Pids:
    """Notes the process of each evaluation; the third one interrupts the driver when asked to."""

    def __init__(self, log: Path, interrupt: bool) -> None:
        self.log, self.interrupt = log, interrupt

    def __call__(self, trial: Trial) -> Evaluation:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.interrupt and trial.number == 3:
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
        time.sleep(0.02)
        return evaluate(trial)
