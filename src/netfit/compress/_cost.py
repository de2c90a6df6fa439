"""What a candidate costs on a target, as a ratio to the uncompressed network in the same run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from netfit.deploy import Exported, Probe, Session, open_session, to_onnx
from netfit.env import fingerprint
from netfit.targets import HostCPU, Target

__all__ = ["Cost", "HostMeter", "Meter", "TableMeter", "meter"]

REOPENED = 3
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Cost:
    """Cost of a network beside the uncompressed one.

    Attributes:
        ratio: its time divided by the uncompressed network's.
        lo: lower end of the ratio's interval.
        hi: upper end.
        time_s: its time for one inference.
        noisy: the machine was too busy for the interval to be narrow.
    """

    ratio: float
    lo: float
    hi: float
    time_s: float
    noisy: bool = False


class Meter(Protocol):
    """Measures candidates against one yardstick.

    Attributes:
        margin: the search aims at this share of the goal, so that the final measurement's noise does not miss it.
    """

    margin: float

    def cost(self, model: nn.Module) -> Cost:
        """Cost of one network."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the ratio refers to, for the result."""
        ...


class HostMeter:
    """Latency on this machine, against the uncompressed fp32 network in whichever runtime runs that fastest.

    Args:
        target: runtime and threads of the candidates.
        model: the uncompressed network.
        example_inputs: one batch as it will be served (batch 1 for latency).
    """

    margin = 0.97  # intervals of a quiet machine are about +-1 %, and a measurement wider than +-3 % is flagged

    def __init__(self, target: HostCPU, model: nn.Module, example_inputs: Inputs) -> None:
        self.target, self.example_inputs = target, example_inputs
        self._base = to_onnx(model, example_inputs)
        self._probe = Probe(model, example_inputs)
        sessions = {name: open_session(self._base, name, target.threads) for name in ("openvino", "onnxruntime")}
        found = target.latency(sessions, "openvino", self._arrays())
        self.seconds = {name: t.seconds for name, t in found.timings.items()}
        self._sessions: dict[str, Session] = dict(sessions)
        self.use(min(found.timings, key=lambda name: found.timings[name].ratio))
        # Candidates are ranked, not reported: a third of the time each buys three times as many of them.
        self._quick = HostCPU(target.runtime, target.threads, budget_s=target.budget_s / 3)

    def use(self, runtime: str) -> None:
        """Take the uncompressed network in this runtime as the yardstick, as an earlier process of the job did."""
        self.runtime, self._yardstick = runtime, self._sessions[runtime]

    def _arrays(self) -> list[Any]:
        return [x.detach().numpy() for x in self.example_inputs]

    def cost(self, model: nn.Module) -> Cost:
        """Time a candidate in the target's runtime, in turns with the yardstick; its values are not exported."""
        session = open_session(self._probe.onnx(model), self.candidate_runtime, self.target.threads)
        return self._timed(session, self._yardstick, self._quick)

    def file_cost(self, exported: Exported) -> Cost:
        """Cost of a deployed file: the median over sessions opened anew, quiet ones if there were any.

        Where a runtime happens to place its buffers moves a small network's time by several percent, for as long as
        the session lives. One session is enough to rank candidates, but not to state a figure.
        """
        found: list[Cost] = []
        while len(found) < REOPENED * 2 and sum(not c.noisy for c in found) < REOPENED:
            base = open_session(self._base, self.runtime, self.target.threads)
            session = open_session(exported.path, self.candidate_runtime, self.target.threads)
            found.append(self._timed(session, base, self.target))
        trusted = sorted([c for c in found if not c.noisy] or found, key=lambda cost: cost.ratio)
        middle = trusted[len(trusted) // 2]
        return replace(middle, lo=trusted[0].ratio, hi=trusted[-1].ratio)

    def _timed(self, session: Session, base: Session, target: HostCPU) -> Cost:
        found = target.latency({"base": base, "net": session}, "base", self._arrays()).timings["net"]
        return Cost(found.ratio, found.lo, found.hi, found.seconds, found.noisy)

    @property
    def candidate_runtime(self) -> str:
        """Runtime the candidates are timed in."""
        return "openvino" if self.target.runtime == "fastest" else self.target.runtime

    def describe(self) -> dict[str, Any]:
        """Runtime, threads, batch and measured seconds of the yardstick."""
        return {
            "runtime": self.runtime,
            "version": fingerprint()["packages"][self.runtime],
            "threads": self.target.threads,
            "batch": int(self.example_inputs[0].shape[0]),
            "latency_s": self.seconds[self.runtime],
            "candidates": self.seconds,
        }


class TableMeter:
    """Cost on any other target: the total time of its cost table."""

    margin = 1.0

    def __init__(self, target: Target, model: nn.Module, example_inputs: Inputs) -> None:
        self.target, self.example_inputs = target, example_inputs
        self.base_s = self._seconds(model)

    def _seconds(self, model: nn.Module) -> float:
        return float(self.target.cost(model, *self.example_inputs).total().time_s)

    def cost(self, model: nn.Module) -> Cost:
        """Total time of the network's table beside the uncompressed one's."""
        seconds = self._seconds(model)
        ratio = seconds / self.base_s
        return Cost(ratio, ratio, ratio, seconds)

    def describe(self) -> dict[str, Any]:
        """The target and the uncompressed network's time on it."""
        facts: Mapping[str, Any] = self.target.fingerprint()
        return {"runtime": facts.get("target", type(self.target).__name__), "latency_s": self.base_s, "batch": 1}


def meter(target: Target, model: nn.Module, example_inputs: Inputs) -> Meter:
    """The meter for a target."""
    if isinstance(target, HostCPU):
        return HostMeter(target, model, example_inputs)
    return TableMeter(target, model, example_inputs)
