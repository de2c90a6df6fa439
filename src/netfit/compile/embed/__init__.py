"""Operators on hardware with one matrix instruction: which part of them it computes, proven by constraint programming.

`embed` decides on the level of axes, for real operators; `scalar` on the level of single multiplications, as the proof
for tiny ones. The layout of every operand follows from the solution, and so does a program of the VTA.
"""

from . import scalar
from ._axes import candidates, reference_calls
from ._embedding import Embedding, embed, pareto, reference

__all__ = ["Embedding", "candidates", "embed", "pareto", "reference", "reference_calls", "scalar"]
