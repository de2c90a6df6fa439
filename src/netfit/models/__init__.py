"""Small networks of the literature, and the user's own, by name."""

from ._build import Recipe, build, names, recipe

__all__ = ["Recipe", "build", "names", "recipe"]
