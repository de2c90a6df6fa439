"""Every published schedule by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from netfit.errors import ConfigError, did_you_mean

from . import _dualpipe, _plain, _vshape, _waves
from ._schedule import Op, Schedule

__all__ = ["families", "make"]

_FAMILIES = (
    "gpipe", "1f1b", "interleaved", "chimera", "hanayo", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe",
    "dualpipev",
)  # fmt: skip
_PLAIN = {"gpipe": _plain.gpipe, "1f1b": _plain.one_f_one_b, "zb-h1": _plain.zb_h1, "zb-h2": _plain.zb_h2}
_V = {"zb-v": _vshape.zb_v, "v-half": _vshape.v_half, "v-min": _vshape.v_min, "dualpipev": _dualpipe.dualpipe_v}
_MOST = 10_000_000  # operations; a mistyped size must not fill the memory

Rows = list[list[Op]]
Placement = tuple[tuple[int, ...], ...]


def families() -> tuple[str, ...]:
    """Names that `make` knows.

    >>> "zb-v" in families()
    True
    """
    return _FAMILIES


def make(
    name: str,
    devices: int,
    microbatches: int,
    *,
    chunks: int | None = None,
    waves: int = 1,
    placement: Literal["mirror", "shift"] | Sequence[int] = "mirror",
) -> Schedule:
    """The table of a published schedule.

    Args:
        name: ``gpipe``, ``1f1b``, ``interleaved``, ``chimera``, ``hanayo``, ``zb-h1``, ``zb-h2``, ``zb-v``,
            ``v-half``, ``v-min``, ``dualpipe`` or ``dualpipev``; ``hanayo-2`` is short for two waves,
            ``interleaved-4`` for four chunks, ``chimera-shift`` for that placement.
        devices: pipeline devices p.
        microbatches: per step, of both replicas together.
        chunks: stages on each device, of ``interleaved`` (2 by default).
        waves: of ``hanayo``; it cuts the network into 2 x waves x devices stages.
        placement: of Chimera's second replica: from the other end, around half the ring, or a device per stage.

    Raises:
        ConfigError: unknown name, or sizes the schedule cannot have; the message names them.

    >>> make("hanayo-2", devices=4, microbatches=4).stages
    16
    """
    base, _, number = name.rpartition("-")
    if base == "chimera" and number == "shift":
        name, placement = base, "shift"
    elif base == "hanayo" and number.isdecimal():
        name, waves = base, int(number)
    elif base == "interleaved" and number.isdecimal():
        name, chunks = base, int(number)
    chunks = 2 if chunks is None else chunks
    for field, value in (("devices", devices), ("microbatches", microbatches), ("chunks", chunks), ("waves", waves)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{field} is {value!r}, it must be a whole number of at least 1")
    if name not in _FAMILIES:
        raise ConfigError(f"no schedule {name!r}; {did_you_mean(name, _FAMILIES)}")
    if devices * microbatches * 2 * max(chunks, 2 * waves) > _MOST:
        raise ConfigError(f"{devices} devices x {microbatches} microbatches make more than {_MOST} operations")
    rows, home = _table(name, devices, microbatches, chunks, waves, placement)
    return Schedule(name, tuple(map(tuple, rows)), home, microbatches)


def _table(
    name: str, p: int, m: int, chunks: int, waves: int, placement: str | Sequence[int]
) -> tuple[Rows, Placement]:
    line = (tuple(range(p)),)
    if name in _PLAIN:
        return _PLAIN[name](p, m), line
    if name in _V:
        return _V[name](p, m), _vshape.v_placement(p)
    if name == "interleaved":
        rows = _plain.interleaved(p, m, chunks) if chunks > 1 or m % p else _plain.one_f_one_b(p, m)
        return rows, (tuple(range(p)) * chunks,)
    if name == "hanayo":
        return _waves.hanayo(p, m, waves), _waves.hanayo_placement(p, waves)
    if name == "dualpipe":
        return _dualpipe.dualpipe(p, m), _dualpipe.dualpipe_placement(p)
    home = _chimera_home(p, placement)
    return _waves.chimera(p, m, home), home


def _chimera_home(p: int, placement: str | Sequence[int]) -> Placement:
    if placement in ("mirror", "shift"):
        return _waves.chimera_placement(p, placement)  # type: ignore[arg-type]  # the check above narrows it
    if isinstance(placement, str) or sorted(placement) != list(range(p)):
        raise ConfigError(f"placement is {placement!r}; allowed: 'mirror', 'shift' or every device 0 to {p - 1} once")
    return tuple(range(p)), tuple(int(d) for d in placement)
