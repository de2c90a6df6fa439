"""The last section of every page: what run.json knows of how the numbers were made."""

from collections.abc import Mapping
from typing import Any

from ._blocks import pairs
from ._model import Section

__all__ = ["reproduce_section"]


def reproduce_section(run: Mapping[str, Any]) -> Section:
    """The job and its arguments, when it ran, the versions and the machine; what is missing is left out."""
    made = _mapping(run, "fingerprint")
    job = {"job": run.get("command"), "seed": run.get("seed"), "begun": run.get("created"), "done": run.get("ended")}
    versions = {"netfit": made.get("netfit"), "python": made.get("python"), **_mapping(made, "packages")}
    machine = {name: value for name, value in made.items() if name not in ("netfit", "python", "packages")}
    arguments = _mapping(run, "arguments")
    tables = (("Job", job), ("Arguments", arguments), ("Versions", versions), ("Machine", machine))
    blocks = [pairs(known, note) for note, values in tables if (known := _known(values))]
    return Section("Reproduce", blocks=tuple(blocks))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {}, [], "")}


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}
