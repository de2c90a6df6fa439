"""GPU kernels that others measured: launches with instruction counts, and exhaustive tuning spaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from netfit.errors import ConfigError, did_you_mean

from ._files import Npz, Source, find

__all__ = ["GpuLaunches", "TuningSpace", "gpu_launches", "tuning_space"]

LAUNCHES = Source("gpu_kernels.npz", 12_848, "no licence stated", "the repository UniHD-CEG/gpu-mangrove-tutorial")
SPACES = Source("kernel_tuning.npz", 2_940_687, "MIT", "the repository AutoTuningAssociation/benchmark_hub")


@dataclass(frozen=True, eq=False)
class GpuLaunches:
    """Kernel launches with executed PTX instructions, measured ten times each on two GPUs.

    Attributes:
        names: of the columns of ``counts``: opcodes, and gX to gZ, bX to bZ, shm, time.
        counts: shape (launches, columns).
        app: application of each launch.
        dataset: its input.
        kernel: name of the kernel.
        time_us: microseconds by GPU, shape (launches, repeats).
        power_w: watts by GPU, the same shape.
    """

    names: tuple[str, ...]
    counts: NDArray[Any]
    app: NDArray[Any]
    dataset: NDArray[Any]
    kernel: NDArray[Any]
    time_us: Mapping[str, NDArray[Any]]
    power_w: Mapping[str, NDArray[Any]]


def gpu_launches(root: str | Path | None = None) -> GpuLaunches:
    """The 43 launches of the GPU Mangrove tutorial, on a K80 and a T4.

    Raises:
        DataNotFound: the file is nowhere.
    """
    npz = Npz(find("gpu-launches", (LAUNCHES,), root))
    time, power = ({gpu.lower(): npz[f"{what}_{gpu}"] for gpu in ("K80", "T4")} for what in ("time", "power"))
    names = tuple(str(name) for name in npz["feature_names"])
    return GpuLaunches(names, npz["features"], npz["app"], npz["dataset"], npz["kernel"], time, power)


@dataclass(frozen=True, eq=False)
class TuningSpace:
    """Every configuration of one kernel on one GPU.

    Attributes:
        device: name of the GPU.
        problem: size of the problem.
        names: of the parameters.
        params: int32, shape (configurations, parameters).
        time_ms: milliseconds, NaN where a configuration failed.
        status: text of each configuration, ``"ok"`` or why it failed.
    """

    device: str
    problem: tuple[str, ...]
    names: tuple[str, ...]
    params: NDArray[Any]
    time_ms: NDArray[Any]
    status: NDArray[Any]


def tuning_space(name: str, root: str | Path | None = None) -> TuningSpace:
    """One exhaustively measured space of the Kernel Tuner hub, such as ``"convolution_milo/A100"``.

    Raises:
        DataNotFound: the file is nowhere.
        ConfigError: it holds no such space.
    """
    npz = Npz(find("tuning-space", (SPACES,), root))
    spaces = [str(space) for space in npz["spaces"]]
    if name not in spaces:
        raise ConfigError(f"no tuning space {name!r}; {did_you_mean(name, spaces)}")
    texts = (
        tuple(str(x) for x in npz[f"{name}/{key}"].ravel()) for key in ("device_name", "problem_size", "param_names")
    )
    device, problem, names = texts
    status = npz[f"{name}/status_names"][npz[f"{name}/status"]]
    return TuningSpace(device[0], problem, names, npz[f"{name}/params"], npz[f"{name}/time_ms"], status)
