"""Contracts that every technique and every target keeps, as test classes for those who write their own.

A technique or target that passes its contract works with policies, searches, reports and saved artifacts.
"""

from ._target import TargetContract
from ._technique import TechniqueContract

__all__ = ["TargetContract", "TechniqueContract"]
