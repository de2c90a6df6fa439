"""Small networks of the literature, and the user's own, by name."""

from ._build import Recipe, build, default_in_shape, names, recipe

__all__ = ["Recipe", "build", "default_in_shape", "names", "recipe"]
