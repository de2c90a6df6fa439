"""Which techniques act on which places: an ordered map from site patterns to techniques, and its file form.

    [policy."layer1.*"]
    prune = {sparsity = 0.5}
    quantize = {weight_bits = 8, act_bits = 8}

A pattern is an `fnmatch` pattern over site names (``"layer?.*.conv1"``) or a kind (``"kind:conv2d"``). A later entry
overrides an earlier one of the same technique at the same site.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from netfit import io
from netfit.errors import ArtifactError, ConfigError, UnsupportedLayerError, did_you_mean

from ._technique import Site, Technique, known_techniques, technique

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Policy"]

MAX_FILE_BYTES = 10_000_000


class Policy(Mapping[str, tuple[Technique, ...]]):
    """An ordered, immutable map from site patterns to techniques.

    Args:
        entries: pattern -> one technique or a list of them.

    Raises:
        ConfigError: a value is no technique, or a pattern holds one technique twice.

    Example:
        >>> from netfit.surgery import Quantize
        >>> policy = Policy({"*": Quantize(), "fc": Quantize(weight_bits=4)})
        >>> Policy.from_toml(policy.to_toml()) == policy
        True
    """

    def __init__(self, entries: Mapping[str, Technique | Sequence[Technique]] | None = None) -> None:
        self._entries: dict[str, tuple[Technique, ...]] = {}
        for pattern, given in (entries or {}).items():
            listed = (given,) if isinstance(given, Technique) else tuple(given)
            for t in listed:
                if not isinstance(t, Technique):
                    raise ConfigError(f"policy entry {pattern!r} holds {t!r}, which is no technique")
            names = [t.name for t in listed]
            if len(set(names)) != len(names):
                raise ConfigError(f"policy entry {pattern!r} names one technique twice: {', '.join(names)}")
            self._entries[pattern] = listed

    def __getitem__(self, pattern: str) -> tuple[Technique, ...]:
        return self._entries[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self._entries.items()))

    def __repr__(self) -> str:
        return f"Policy({self._entries!r})"

    def resolve(self, found: Sequence[Site]) -> dict[type[Technique], dict[Site, Technique]]:
        """What to do where, on the sites of one network, by technique in stage order.

        Raises:
            ConfigError: patterns match nothing (all of them are named, each with the nearest sites).
            UnsupportedLayerError: a pattern matches sites, but none of a kind the technique handles.
        """
        chosen: dict[type[Technique], dict[Site, Technique]] = {}
        mistakes: list[str] = []
        for pattern, techniques in self.items():
            hits = [s for s in found if _matches(pattern, s)]
            if not hits:
                names = {s.name for s in found} | {f"kind:{s.kind}" for s in found}
                mistakes.append(f"pattern {pattern!r} matches no site: {did_you_mean(pattern, names)}")
            for t in techniques if hits else ():
                able = [s for s in hits if t.kinds is None or s.kind in t.kinds]
                if not able:
                    kinds = ", ".join(sorted({s.kind for s in hits}))
                    raise UnsupportedLayerError(
                        f"{t.name} at {pattern!r} finds only {kinds}; it handles {', '.join(sorted(t.kinds or ()))}"
                    )
                chosen.setdefault(type(t), {}).update({s: t for s in able})
        if mistakes:
            raise ConfigError("; ".join(mistakes))
        return dict(sorted(chosen.items(), key=lambda item: (item[0].stage, item[0].name)))

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The policy as plain values: pattern -> technique name -> settings."""
        return {pattern: {t.name: t.settings() for t in listed} for pattern, listed in self.items()}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], source: str = "policy") -> "Policy":
        """Rebuild a policy from `to_dict` values.

        Raises:
            ConfigError: one line that names every mistake by its path, with what was probably meant.
        """
        mistakes: list[str] = []
        entries: dict[str, list[Technique]] = {}
        for pattern, listed in body.items():
            if not isinstance(listed, Mapping):
                mistakes.append(f'policy."{pattern}": expected a table of techniques, found {listed!r}')
                continue
            entries[pattern] = []
            for name, settings in listed.items():
                entries[pattern] += _read(f'policy."{pattern}".{name}', str(name), settings, mistakes)
        if mistakes:
            raise ConfigError(f"{source}: {len(mistakes)} mistake{'s'[: len(mistakes) > 1]}: " + "; ".join(mistakes))
        return cls(entries)

    def to_toml(self) -> str:
        """The policy as the text of a TOML file."""
        lines: list[str] = [] if self else ["[policy]"]
        for pattern, listed in self.to_dict().items():
            lines.append(f"[policy.{json.dumps(pattern)}]")
            for name, settings in listed.items():
                inner = ", ".join(f"{k} = {_toml(v)}" for k, v in settings.items())
                lines.append(f"{name} = {{{inner}}}")
            lines.append("")
        return "\n".join(lines)

    @classmethod
    def from_toml(cls, text: str, source: str = "policy") -> "Policy":
        """Read a policy from TOML text.

        Raises:
            ConfigError: the text is no TOML, or `from_dict` finds mistakes.
        """
        try:
            body = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            raise ConfigError(f"{source} is not TOML: {e}") from e
        return cls._from_body(body, source)

    @classmethod
    def _from_body(cls, body: Any, source: str) -> "Policy":
        if not isinstance(body, dict) or set(body) != {"policy"} or not isinstance(body["policy"], dict):
            found = ", ".join(map(repr, body)) if isinstance(body, dict) and body else "nothing"
            raise ConfigError(f'{source} must hold tables [policy."<pattern>"] only, found {found}')
        return cls.from_dict(body["policy"], source)

    def save(self, path: str | Path) -> None:
        """Write the policy as TOML, or as JSON when the name ends in ``.json``; the write is atomic."""
        path = Path(path)
        if path.suffix == ".json":
            io.write_json(path, {"policy": self.to_dict()})
        else:
            io.write_bytes(path, self.to_toml().encode())

    @classmethod
    def load(cls, path: str | Path) -> "Policy":
        """Read a policy file (TOML, or JSON when the name ends in ``.json``).

        Raises:
            ConfigError: the file is missing or wrong; every mistake is named.
        """
        path = Path(path)
        try:
            if path.suffix == ".json":
                return cls._from_body(io.read_json(path, max_bytes=MAX_FILE_BYTES), str(path))
            with path.open("rb") as f:
                text = f.read(MAX_FILE_BYTES + 1)
            if len(text) > MAX_FILE_BYTES:
                raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes: not a policy")
            return cls.from_toml(text.decode(), str(path))
        except (OSError, UnicodeDecodeError, ArtifactError) as e:
            raise ConfigError(f"cannot read policy {path}: {e}") from e


def _matches(pattern: str, site: Site) -> bool:
    if pattern.startswith("kind:"):
        return fnmatchcase(site.kind, pattern.removeprefix("kind:"))
    return fnmatchcase(site.name, pattern)


def _read(path: str, name: str, settings: Any, mistakes: list[str]) -> Iterable[Technique]:
    """One technique from a file; problems are added to `mistakes` with their path."""
    from pydantic import ValidationError  # 3 times a bare Python: only when a file is read

    try:
        cls = technique(name)
    except ConfigError:
        mistakes.append(f"{path}: no such technique; {did_you_mean(name, known_techniques())}")
        return ()
    if not isinstance(settings, Mapping):
        mistakes.append(f"{path}: expected settings in braces, found {settings!r}")
        return ()
    try:
        values = _schema(cls).model_validate(dict(settings))
        return (cls(**{k: getattr(values, k) for k in settings}),)
    except ValidationError as e:
        for problem in e.errors(include_url=False):
            field = ".".join(
                str(part) for part in problem["loc"] if str(part) in cls.__dataclass_fields__ or part in settings
            )
            if problem["type"] == "extra_forbidden":
                mistakes.append(f"{path}.{field}: no such setting; {did_you_mean(field, cls.__dataclass_fields__)}")
            else:
                mistakes.append(f"{path}.{field}: {problem['msg']}, found {problem['input']!r}")
    except ConfigError as e:
        mistakes.append(f"{path}: {e}, found {dict(settings)!r}")
    return ()


def _schema(cls: type[Technique]) -> "type[BaseModel]":
    """Strict model of a technique's settings: pydantic reports all mistakes at once, a dataclass only the first."""
    from pydantic import ConfigDict, create_model

    hints = get_type_hints(cls)
    fields: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is dataclasses.MISSING else f.default) for f in dataclasses.fields(cls)
    }
    return create_model(cls.__name__, __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value)
