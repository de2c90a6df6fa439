"""Every error netfit raises on purpose.

A message is one line that says what was asked, what was found and what would work. The command line prints
it without a traceback and exits with status 2 when the input was wrong, 1 when the job failed.

    NetfitError
    ├── ConfigError (ValueError)            an argument, option or file holds a value that cannot be used
    │   └── PolicyConflict                  two entries of a policy contradict each other
    ├── UnsupportedLayerError (TypeError)   a technique or target cannot handle this operator
    ├── DataNotFound (FileNotFoundError)    a data set is neither on disk nor downloadable
    ├── ArtifactError (ValueError)          a saved file is damaged, incomplete or cannot be written
    │   └── ArtifactVersionError            it was written by a newer netfit
    ├── MissingExtraError (ImportError)     an optional dependency is not installed
    ├── TargetError (RuntimeError)          hardware or a runtime did not do what was asked
    │   └── TargetUnavailable               it is not there, busy, or not installed yet
    └── JobError (RuntimeError)             the job ran but did not reach its goal (exit status 1)
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = [
    "ArtifactError",
    "ArtifactVersionError",
    "ConfigError",
    "DataNotFound",
    "JobError",
    "MissingExtraError",
    "NetfitError",
    "PolicyConflict",
    "TargetError",
    "TargetUnavailable",
    "UnsupportedLayerError",
    "did_you_mean",
    "require",
]


class NetfitError(Exception):
    """Base of all errors netfit raises on purpose."""

    exit_status = 2


class ConfigError(NetfitError, ValueError):
    """An argument, option or file holds a value that cannot be used."""


class PolicyConflict(ConfigError):
    """Two entries of a policy contradict each other."""


class UnsupportedLayerError(NetfitError, TypeError):
    """A technique or target cannot handle this operator."""


class DataNotFound(NetfitError, FileNotFoundError):
    """A data set is neither on disk nor downloadable."""


class ArtifactError(NetfitError, ValueError):
    """A saved file is damaged, incomplete or cannot be written."""


class ArtifactVersionError(ArtifactError):
    """A saved file was written by a newer netfit."""


class MissingExtraError(NetfitError, ImportError):
    """An optional dependency is not installed."""


class TargetError(NetfitError, RuntimeError):
    """Hardware or a runtime did not do what was asked."""

    exit_status = 1


class TargetUnavailable(TargetError):
    """A target is not there, busy, or not installed yet."""

    exit_status = 2


class JobError(NetfitError, RuntimeError):
    """The job ran but did not reach its goal; what it found so far is kept."""

    exit_status = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End of an error message: the nearest known names, or all of them when none is near.

    >>> did_you_mean("resnet2", ["resnet20", "lenet5"])
    "did you mean 'resnet20'?"
    >>> did_you_mean("zebra", ["resnet20", "lenet5"])
    'known: lenet5, resnet20'
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        likeness = {n: difflib.SequenceMatcher(None, n, word).ratio() for n in near}
        near = [n for n in near if likeness[n] > likeness[near[0]] - 0.15]  # not far behind the nearest
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "known: " + ", ".join(names) if names else "nothing is known by that kind of name"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: dotted module name, such as ``"onnxruntime"``.
        extra: the extra of the netfit package that installs it.

    Raises:
        MissingExtraError: the module is not installed; the message holds the command to run.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        root = module.partition(".")[0]
        raise MissingExtraError(f"{root} is needed here: pip install 'netfit[{extra}]'") from e
