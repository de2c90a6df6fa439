"""Data sets by name, as numpy arrays in the layout that a network sees; torch only when tensors are asked for."""

from ._audio import Recordings, recordings
from ._dataset import Dataset, check_disjoint
from ._load import load, names

__all__ = ["Dataset", "Recordings", "check_disjoint", "load", "names", "recordings"]
