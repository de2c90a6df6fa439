"""Data sets by name, as numpy arrays in the layout that a network sees; torch only when tensors are asked for."""

from ._audio import Recordings, recordings
from ._csv import Table, read_csv
from ._dataset import Dataset, check_disjoint
from ._gpu import GpuLaunches, TuningSpace, gpu_launches, tuning_space
from ._load import load, names
from ._series import Series, read_series, series

__all__ = [
    "Dataset",
    "GpuLaunches",
    "Recordings",
    "Series",
    "Table",
    "TuningSpace",
    "check_disjoint",
    "gpu_launches",
    "load",
    "names",
    "read_csv",
    "read_series",
    "recordings",
    "series",
    "tuning_space",
]
