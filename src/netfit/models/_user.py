"""Models of the user: a factory named by ``package.module:factory`` or ``file.py:factory``."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from netfit.errors import ConfigError, did_you_mean


def build_user(spec: str, num_classes: int | None, in_shape: tuple[int, ...] | None) -> nn.Module:
    """Call the user's factory; every failure of the user's code is one line that names the factory."""
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(f"model {spec!r} must be package.module:factory or file.py:factory")
    module = _load(spec, place)
    factory = getattr(module, name, None)
    if factory is None:
        own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{place} has no {name!r}; {did_you_mean(name, own)}")
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ConfigError(f"{spec} is a {type(factory).__name__}, not a function that returns a model")
    try:
        model = factory(**_arguments(factory, num_classes=num_classes, in_shape=in_shape))
    except Exception as e:
        raise ConfigError(f"model factory {spec} raised {describe(e)}") from e
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model factory {spec} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _arguments(factory: Any, **offered: Any) -> dict[str, Any]:
    """Those of the offered values that are known and that the signature takes by name."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have no signature
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = {p.name for p in parameters if p.kind in by_name}
    return {name: value for name, value in offered.items() if value is not None and name in taken}


def _load(spec: str, place: str) -> ModuleType:
    path = Path(place).expanduser()
    if place.endswith(".py") and not path.is_file():
        raise ConfigError(f"model {spec!r}: there is no file {place}")
    try:
        if place.endswith(".py"):
            return _load_file(path.resolve())
        with _importable(Path.cwd()):
            return importlib.import_module(place)
    except Exception as e:
        raise ConfigError(f"model {spec!r}: importing {place} failed with {describe(e)}") from e


def _load_file(path: Path) -> ModuleType:
    # A name of its own, so that two files called model.py do not meet in sys.modules.
    name = f"netfit_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and torch.export look a class's module up there
    with _importable(path.parent):
        module_spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the user's code import its neighbours, as ``python file.py`` would."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
