"""Peak memory of one inference, measured where nothing else lives: in a fresh process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netfit.errors import ArtifactError, TargetError, TargetUnavailable

_TIMEOUT_S = 600


@dataclass(frozen=True)
class PeakMemory:
    """Peak resident memory of loading a network and running it.

    Args:
        added_bytes: what loading and running added: ``peak_bytes - baseline_bytes``.
        peak_bytes: highest resident set of the process (VmHWM).
        baseline_bytes: resident set after the runtime was imported, before the network was loaded.
    """

    added_bytes: int
    peak_bytes: int
    baseline_bytes: int

    @classmethod
    def from_json(cls, obj: Any) -> "PeakMemory":
        """Read the JSON object of the three fields.

        Raises:
            ArtifactError: it is not one.
        """
        try:
            return cls(**{k: int(v) for k, v in obj.items()})
        except (TypeError, ValueError, AttributeError) as e:
            raise ArtifactError(f"not a memory measurement: {e}") from e


def peak_memory(path: Path, runtime: str, threads: int, x: NDArray[Any] | Sequence[NDArray[Any]] | None) -> PeakMemory:
    """Load and run ``path`` in a fresh process and read its peak resident set.

    Args:
        path: exported network.
        runtime: as in :func:`netfit.deploy.open_session`.
        threads: threads of one inference.
        x: input of the inference; None for noise of batch one.

    Raises:
        TargetUnavailable: not Linux.
        TargetError: the process failed, was killed, or took more than ten minutes.
    """
    if not sys.platform.startswith("linux"):
        raise TargetUnavailable(f"peak memory is read from Linux's /proc, and this is {sys.platform}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "netfit.targets._peak", str(path.resolve()), runtime, str(threads)]
        if x is not None:
            file = Path(folder) / "x.npz"
            np.savez(file, *([x] if isinstance(x, np.ndarray) else x))
            command.append(str(file))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as e:
            raise TargetError(f"measuring the memory of {path} took more than {_TIMEOUT_S} s") from e
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        cause = f"killed by signal {-done.returncode} (out of memory?)" if done.returncode < 0 else last
        raise TargetError(f"measuring the memory of {path} failed: {cause[:300]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return PeakMemory(found["peak"] - found["baseline"], found["peak"], found["baseline"])
