"""`measure`: peak memory and time of a training step."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from netfit.errors import ArtifactError, ConfigError

from ._compress import CodecPolicy, compressed_saved
from ._process import in_child, restart_peak, status, tune_allocator
from ._step import BACKWARD, TrainingStep, undisturbed
from ._timeline import record

__all__ = ["MemoryReport", "measure"]

_EVERY_BYTE = 65536  # allocations of at least this size come and go with the resident set


@dataclass(frozen=True)
class MemoryReport:
    """What one step takes.

    Args:
        peak: most bytes of torch's allocator at once, those that stay from step to step (`held`) included.
        process_peak: the same from the resident set of a process of its own; None when it was not isolated. It inherits
            the heap of this one: after training here, holes are counted too, unless `tune_allocator` came first.
        held: bytes of parameters, buffers, optimizer and batch; empty for a plain function.
        saved: bytes at the end of the forward pass, most of which the backward pass reads; None for a plain function.
        seconds: least CPU time of a step with one thread.
        timeline: (part of the step, bytes above those held).
    """

    peak: int
    process_peak: int | None
    held: dict[str, int]
    saved: int | None
    seconds: float
    timeline: tuple[tuple[float, int], ...]

    @property
    def transient(self) -> int:
        """Bytes at the peak that are neither held nor saved: workspaces, gradients on their way."""
        return self.peak - sum(self.held.values()) - (self.saved or 0)

    def to_json(self) -> dict[str, Any]:
        """JSON object that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, obj: dict[str, Any]) -> "MemoryReport":
        """Read what `to_json` wrote.

        Raises:
            ArtifactError: it is something else.
        """
        try:
            points = tuple((float(t), int(b)) for t, b in obj["timeline"])
            return cls(**{**obj, "timeline": points})
        except (TypeError, ValueError, KeyError) as e:
            raise ArtifactError(f"not a memory measurement: {e}") from e


def measure(
    work: TrainingStep | Callable[[], object],
    *,
    policy: CodecPolicy | None = None,
    isolate: bool = True,
    repeats: int = 3,
    seed: int = 0,
) -> MemoryReport:
    """Peak memory and time of a training step, or of any function.

    Isolated, everything happens in a forked child with one thread and an allocator that hands freed memory back: the
    step may change what it likes, and the resident set is seen too. CPU only; a GPU's step is measured in place.

    Args:
        work: the step. A plain function is measured by what it adds.
        policy: how a step's activations are kept; see `compress_saved`.
        isolate: measure in a child process; else here, without `process_peak`, and the step's buffers, gradients and
            random state are put back but not what an optimizer did.
        repeats: timed steps.
        seed: of random rounding.

    Raises:
        ConfigError: a policy for something that is no step.
        TargetError: the step failed or the child was killed.

    Example:
        >>> import torch
        >>> step = TrainingStep(torch.nn.Linear(256, 256), torch.randn(64, 256))
        >>> measure(step, isolate=False).held["parameters"]
        263168
    """
    step = work if isinstance(work, TrainingStep) else None
    if policy is not None and step is None:
        raise ConfigError("a policy is for a TrainingStep: a plain function has no model to compress")
    device = step.inputs[0].device.type if step is not None else "cpu"
    context = compressed_saved(step.model, policy, seed=seed) if step is not None and policy else nullcontext()

    def look(isolated: bool) -> dict[str, Any]:
        with context:
            return _look(work, repeats, device, isolated)

    if isolate and device == "cpu":
        return MemoryReport.from_json(in_child(lambda: look(True)))
    if step is None:
        return MemoryReport.from_json(look(False))
    with undisturbed(step):
        return MemoryReport.from_json(look(False))


def _look(work: Callable[[], object], repeats: int, device: str, isolated: bool) -> dict[str, Any]:
    if isolated:
        tune_allocator(_EVERY_BYTE)
    work()  # builds what stays: kernels, optimizer state
    _drop_gradients(work)
    held = work.held() if isinstance(work, TrainingStep) else {}
    stays = sum(held.values())
    process_peak = None
    if isolated:
        rest = restart_peak()
        work()
        process_peak = stays + max(0, status("VmHWM") - rest)
        _drop_gradients(work)
    seconds = []
    for _ in range(repeats):
        start = time.process_time() if device == "cpu" else time.perf_counter()
        work()
        seconds.append((time.process_time() if device == "cpu" else time.perf_counter()) - start)
    _drop_gradients(work)
    timeline = record(work, device)
    return {
        "peak": stays + timeline.peak,
        "process_peak": process_peak,
        "held": held,
        "saved": timeline.mark(BACKWARD),
        "seconds": min(seconds, default=0.0),  # others on the machine only add to it
        "timeline": timeline.thinned(),
    }


def _drop_gradients(work: Callable[[], object]) -> None:
    if isinstance(work, TrainingStep):
        for parameter in work.model.parameters():
            parameter.grad = None
