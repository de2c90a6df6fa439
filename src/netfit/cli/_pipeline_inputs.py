"""What the commands of ``netfit pipeline`` are given: costs of the stages, networks, tables."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netfit.errors import ConfigError

from ._options import Count, InShape, shape

if TYPE_CHECKING:
    from netfit.pipeline import Network, Schedule, StageCosts

__all__ = [
    "EQUAL",
    "NetworkName",
    "Times",
    "Work",
    "costs_of",
    "network_of",
    "numbers",
    "open_table",
    "tables_of",
    "words",
]

NetworkName = Annotated[
    str,
    Parameter(
        help="a100-nvlink, a100-ib, h100-nvlink, h100-ib, a40-pcie, free, or message:0.3 for messages of that many "
        "seconds."
    ),
]
Times = Annotated[
    str | None, Parameter(help="Seconds of forward, input gradient and weight gradient on one device, such as 1,1,1.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Work:
    """What the stages compute; equal stages by --times, or a network by --model."""

    model: Annotated[str | None, Parameter(help="gpt-1b, gpt-7b, gpt-70b, or any MODEL of netfit cost.")] = None
    times: Times = None
    target: Annotated[
        str | None, Parameter(help="h100 or a100 (shares of the data sheet), or any target of netfit cost.")
    ] = None
    microbatch: Annotated[Count, Parameter(help="Samples or sequences of one microbatch.")] = 1
    sequence: Annotated[Count, Parameter(help="Tokens of a sequence, for gpt networks.")] = 2048
    in_shape: InShape = None


EQUAL = Work()


def costs_of(work: Work, devices: int) -> "Callable[[int], StageCosts]":
    """Costs of the network cut into any number of stages."""
    from netfit.pipeline import StageCosts

    if work.model is None:
        f, b, w = _times(work.times or "1,1,1")
        uniform = StageCosts.uniform(devices, f, b, w, boundary_bytes=1.0)
        return uniform.for_stages
    if work.times is not None:
        raise ConfigError("--times and --model both say how long stages take; give one of them")
    workload, priced = _priced(work)
    return lambda stages: StageCosts.from_target(workload, priced, stages=stages)


def _priced(work: Work) -> tuple[Any, Any]:
    from netfit.pipeline import Peak, gpt
    from netfit.targets import parse

    assert work.model is not None
    target: Any = Peak(work.target or "h100") if work.target in (None, "h100", "a100") else parse(str(work.target))
    if work.model.startswith("gpt-"):
        return gpt(work.model, microbatch=work.microbatch, sequence=work.sequence), target
    from ._network import open_network, operators

    network = open_network(work.model, shape(work.in_shape))
    x = network.inputs(work.microbatch)
    # A measured target has to run the network; its rows find their operators by name.
    priced = target.cost(network.model, x) if target.kind == "measured" else target
    return operators(network.model, x), priced


def _times(text: str) -> tuple[float, float, float]:
    try:
        f, b, w = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--times {text!r} must be three numbers, such as 1,1,1") from None
    return f, b, w


def numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 2**20 for part in parts):
        raise ConfigError(f"{option} {text!r} must be whole numbers of at least 1, such as 4,8,16")
    return [int(part) for part in parts]


def words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def network_of(name: str, devices: int) -> "Network":
    from netfit.pipeline import Network

    kind, _, value = name.partition(":")
    if kind == "message":
        try:
            seconds = float(value)
        except ValueError:
            raise ConfigError(f"--network {name!r} must be message:SECONDS, such as message:0.3") from None
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"--network {name!r}: a message takes {seconds} s, it must be positive")
        return Network.uniform(devices, bytes_per_s=1 / seconds, name=name)
    return Network.preset(name, devices)


def open_table(name: str, devices: int, microbatches: int) -> "Schedule":
    from netfit.pipeline import Schedule, make

    if name.endswith(".csv"):
        return Schedule.from_torch_csv(Path(name))
    return make(name, devices, microbatches)


def tables_of(names: list[str], devices: int, microbatches: int) -> "tuple[list[Schedule], list[str]]":
    """Those that these sizes allow, and why the others are left out."""
    from netfit.pipeline import families, make

    able, left_out = [], []
    for name in names:
        try:
            able.append(make(name, devices, microbatches))
        except ConfigError as e:
            if name.rstrip("-0123456789") not in families() and name not in (*families(), "chimera-shift"):
                raise
            left_out.append(f"m={microbatches}: {name} left out: {e}")
    if not able:
        raise ConfigError("no schedule is possible: " + "; ".join(left_out))
    return able, left_out
