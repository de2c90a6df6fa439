"""Data sets by name, as numpy arrays in the layout that a network sees; torch only when tensors are asked for."""

from ._audio import Recordings, recordings
from ._dataset import Dataset, check_disjoint
from ._gpu import GpuLaunches, TuningSpace, gpu_launches, tuning_space
from ._load import load, names

__all__ = [
    "Dataset",
    "GpuLaunches",
    "Recordings",
    "TuningSpace",
    "check_disjoint",
    "gpu_launches",
    "load",
    "names",
    "recordings",
    "tuning_space",
]
