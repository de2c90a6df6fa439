"""``netfit env``: what a number of this machine depends on."""

from typing import Any

from ._options import Json
from ._output import Output, answer

__all__ = ["env"]


def env(*, as_json: Json = False) -> Output:
    """The machine and the versions that measured and trained numbers depend on."""
    from netfit.env import fingerprint

    facts = fingerprint()
    width = max(map(len, facts))
    return answer(as_json, facts, "\n".join(f"{name:{width}}  {_plain(value)}" for name, value in facts.items()))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {'none' if v is None else v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
