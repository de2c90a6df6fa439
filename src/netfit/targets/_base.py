"""What every target shares: the device, the cost table, and the one verb ``cost``.

Measured, simulated, predicted and bounded hardware answer in the same table, so a search, a report or the
command line never asks which kind it is talking to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import nn

    from netfit.surgery import Policy
    from netfit.targets._table import CostTable
    from netfit.workload import Op, Workload

Kind = Literal["measured", "simulated", "predicted", "bounded"]


@dataclass(frozen=True)
class DeviceSpec:
    """What is known of a device.

    Args:
        name: what the vendor or the operating system calls it.
        flops: peak operations per second by precision, such as ``{"fp32": 67e12, "int8": 1979e12}``; None when
            nobody published or measured them.
        bandwidth: bytes per second by memory level, such as ``{"dram": 3.35e12}``; None when unknown.
        memory_bytes: size of the main memory; None when unknown.
    """

    name: str
    flops: Mapping[str, float] | None = None
    bandwidth: Mapping[str, float] | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class LinkSpec:
    """A link between two devices: a message of n bytes takes ``latency_s + n / bandwidth_bytes_per_s``.

    >>> LinkSpec(latency_s=1e-6, bandwidth_bytes_per_s=1e9).seconds(1000)
    2e-06
    """

    latency_s: float
    bandwidth_bytes_per_s: float

    def seconds(self, size_bytes: float) -> float:
        """Time of one message of ``size_bytes``, in seconds."""
        return self.latency_s + size_bytes / self.bandwidth_bytes_per_s


class Target(ABC):
    """Hardware that says what a network costs.

    A subclass sets ``kind`` (how the numbers come about) and answers the questions below; everything else of
    netfit works with any target.
    """

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def spec(self) -> DeviceSpec:
        """What is known of the device."""

    @property
    def channel_step(self) -> int:
        """Channel counts that are multiples of this waste no lanes; 1 when every count is as good."""
        return 1

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """JSON facts that must be equal for two costs to be comparable (device, versions, settings)."""

    @abstractmethod
    def precisions(self, kind: str) -> tuple[str, ...]:
        """Precisions this target runs an operator of ``kind`` in, such as ``("fp32", "int8")``, widest first."""

    def offered(self, op: Op) -> tuple[str, ...]:
        """Precisions worth trying for one layer, widest first: those of its kind, unless its shape matters."""
        return self.precisions(op.kind)

    @abstractmethod
    def cost(
        self,
        workload_or_model: Workload | nn.Module,
        *example_inputs: Any,
        policy: Policy | None = None,
    ) -> CostTable:
        """What one inference costs, operator by operator.

        Args:
            workload_or_model: a traced workload, or a model with its example inputs. Measured targets need the
                model, because a workload cannot be run.
            *example_inputs: what ``model`` is called with, batch axis included.
            policy: applied to a copy of the model first; the given model is untouched.

        Raises:
            ConfigError: the input cannot be costed here; the message says what can.
            TargetUnavailable: the hardware or its runtime is not there.
        """
