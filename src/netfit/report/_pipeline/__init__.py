"""The page of `netfit pipeline compare`: who wins on which links, what it keeps in memory, and what it looks like."""

from ._page import pipeline_report

__all__ = ["pipeline_report"]
