"""The command line: thin modules that parse, call a room below, and print. Nothing heavy is imported to show help."""

from ._main import main

__all__ = ["main"]
