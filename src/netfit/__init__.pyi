from ._version import __version__ as __version__
from .errors import NetfitError as NetfitError
