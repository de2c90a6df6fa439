"""The page of `netfit compress`: what was gained, what it cost, which layers paid, how it was measured."""

from ._page import compress_report

__all__ = ["compress_report"]
