"""Targets by name, as the command line and run files write them: ``"host"``, ``"host:onnxruntime"``, ``"vta"``."""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from netfit.errors import ConfigError, TargetUnavailable, did_you_mean

from ._base import Target

GROUP = "netfit.targets"

# name -> "module:factory"; a factory takes what follows the colon ("" when nothing does).
_BUILT_IN = {
    "bops": "netfit.targets._counted:bops",
    "bytes": "netfit.targets._counted:stored_bytes",
    "gpu": "netfit.targets.gpu._target:from_text",
    "host": "netfit.targets._host:from_text",
    "macs": "netfit.targets._counted:macs",
    "remote": "netfit.targets._remote:from_text",
    "roofline": "netfit.targets.roofline._target:from_text",
    "systolic": "netfit.targets.systolic._array:from_text",
    "vta": "netfit.targets.vta._target:from_text",
}


def parse(text: str) -> Target:
    """Make a target from its text.

    Args:
        text: ``"host"``, ``"host:onnxruntime"``, ``"host:openvino"``, ``"remote:http://board:8765"``,
            ``"systolic:128x128"``, ``"systolic:16x16,dataflow=os"``, ``"gpu:h100"``,
            ``"gpu:a100,precision=bf16,time=FOLDER"``, ``"vta:1x16"``, ``"macs"``, ``"bops"``, ``"bytes"``, or
            ``"<name>:<argument>"`` of an installed package that has an entry point ``<name>`` in the group
            ``netfit.targets`` (a callable that takes the argument and returns a target).

    Raises:
        ConfigError: no target has that name, or its argument cannot be read.
        TargetUnavailable: an installed target cannot be loaded.

    >>> parse("host:onnxruntime").spec.name == parse("host").spec.name
    True
    """
    name, _, argument = text.strip().partition(":")
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return _made(text, getattr(importlib.import_module(module), attribute), argument)
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name in installed:
        try:
            factory = installed[name].load()
        except Exception as e:
            raise TargetUnavailable(f"target {name!r} of {installed[name].value} cannot be loaded: {e}") from e
        return _made(text, factory, argument)
    raise ConfigError(f"no target {text!r}; {did_you_mean(name, [*_BUILT_IN, *installed])}")


def _made(text: str, factory: Callable[[str], Any], argument: str) -> Target:
    target = factory(argument)
    if not isinstance(target, Target):
        raise ConfigError(f"target {text!r} made a {type(target).__name__}, which is not a netfit.targets.Target")
    return target
