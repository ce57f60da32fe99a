"""How a file of settings becomes a mapping: YAML, TOML or JSON by extension, with a sentence for each way it can be broken.

YAML is read as YAML 1.2 has it: `200e9` is a number, `no` is text, `010` is ten, and a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from perfmodel.errors import InputError, shown
from perfmodel.exchange.aliases import refuse_repetition

FILE_SUFFIXES: Final = (".yaml", ".yml", ".toml", ".json")
LARGEST_BYTES: Final = 1_000_000
TOO_DEEP: Final = "nested too deeply to be read"
DEEPEST: Final = 500
LONGEST_INTEGER: Final = 40  # characters
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_LOADER):  # type: ignore[misc]
    """The safe loader with YAML 1.2's core schema and unique keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice in one mapping."""
        _refuse_twice(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _refuse_twice(keys: Iterable[object]) -> None:
    seen = set()
    for key in keys:
        if key in seen:
            raise InputError("this key is given twice", key=shown(key).strip("'"))
        seen.add(key)


def _unique_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice(key for key, _ in pairs)
    return dict(pairs)


def _construct_integer(loader: Any, node: Any) -> float:
    return whole_number(loader.construct_scalar(node))


def whole_number(text: str) -> float:
    """A whole number; as a float from LONGEST_INTEGER characters on, so that no number is too large for one.

    >>> whole_number("12"), whole_number("1" + "0" * 40)
    (12, 1e+40)
    """
    number = int(text) if len(text) < LONGEST_INTEGER else float(text)
    if number in {inf, -inf}:
        raise ValueError(f"a whole number of {len(text):,} digits is too large")
    return number


def _refuse_large(value: Any) -> None:
    """TOML's reader leaves whole numbers as long as they are."""
    if isinstance(value, int) and abs(value) >= 10**LONGEST_INTEGER:
        raise ValueError("a whole number in it is too large")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_large(each)


_FLOAT = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"  # one way to read each text: in linear time
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{_FLOAT}$"), list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts a text in quotes wherever the loader would take it for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def read_mapping(path: Path, *, needs: str = "settings (key: value)") -> dict[str, Any]:
    """The mapping in the file at `path`; `needs` says what such a file holds. Errors: InputError that names the file."""
    return mapping_in(read_text(path), path, needs=needs)


def mapping_in(text: str, path: Path, *, needs: str) -> dict[str, Any]:
    """The mapping that the text of the file at `path` says. Errors: InputError, one sentence that names the file."""
    try:
        value = parse_text(text, suffix=path.suffix.lower())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if value is None:
        raise InputError(f"{path} is empty; it needs {needs}")
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {_kind(value)} where it needs {needs}")
    return value


def read_text(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> str:
    """The text of the file at `path`. Errors: InputError for a directory, a missing, unreadable, huge or binary file."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory; name a file in it")
        size = path.stat().st_size
        if size > largest_bytes:
            raise InputError(f"{path} is {size / 1e6:.1f} MB; files of at most {largest_bytes / 1e6:g} MB are read")
        with path.open("rb") as file:
            raw = file.read(largest_bytes + 1)  # also bounds what has no size, such as a pipe
    except OSError as error:
        raise InputError(f"{str(path)[:200]} cannot be read: {(error.strerror or 'unknown reason').lower()}") from None
    except ValueError:
        raise InputError(f"{shown(str(path))} is not the name of a file") from None
    if len(raw) > largest_bytes:
        raise InputError(f"{path} does not end within {largest_bytes / 1e6:g} MB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file") from None
    if "\0" in text:
        raise InputError(f"{path} is not a text file")
    return text


def head_of(path: Path, *, size: int = LARGEST_BYTES) -> str | None:
    """Where a file begins and ends, as text with a mark for each byte that is none; None where there is no such file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head, rest = file.read(size), max(path.stat().st_size - size, 0)
            file.seek(-min(rest, size // 10), 2)
            return (head + b"\n" + file.read(size // 10)).decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def parse_text(text: str, *, suffix: str = ".yaml") -> Any:
    """What `text` says, read as JSON, TOML or (any other suffix) YAML."""
    try:
        if suffix == ".json":
            import json

            hooks: dict[str, Any] = {"object_pairs_hook": _unique_mapping, "parse_int": whole_number}
            return json.loads(text, **hooks) if text.strip() else None
        if suffix == ".toml":
            import tomllib

            document = tomllib.loads(text)
            _refuse_large(document)
            return document or None
        _refuse_depth(text)
        if "&" in text and "*" in text:
            refuse_repetition(yaml.parse(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader with fewer types
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # PyYAML from 6.0.4 on has a limit of its own
            raise InputError(TOO_DEEP) from None
        mark = error.problem_mark or error.context_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"not valid YAML{at}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())[:120]}") from None
    except ValueError as error:  # JSON and TOML errors, and numbers too long to read
        raise InputError(f"not valid {suffix.removeprefix('.').upper()}: {' '.join(str(error).split())[:120]}") from None
    except RecursionError:
        raise InputError(TOO_DEEP) from None
    except (KeyError, AttributeError, TypeError):  # from a !!tag whose text is not of its type
        raise InputError("not valid YAML: a tag (!!) does not fit its value; none is needed") from None


def yaml_text(mapping: Mapping[str, Any]) -> str:
    """A mapping as YAML that reads back as it is, its keys in their order.

    >>> yaml_text({"tensor_parallel": 8, "stages": [{"data_parallel": 96}]}).splitlines()
    ['tensor_parallel: 8', 'stages:', '- data_parallel: 96']
    >>> yaml_text({"name": "62e12"}).strip()  # no number
    "name: '62e12'"
    """
    text: str = yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _refuse_depth(text: str) -> None:
    """The C loader recurses without a limit: walk the events of a text that has enough openings to hurt it."""
    if sum(text.count(opening) for opening in "[{-:?") <= DEEPEST:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", bool: "true or false"}.get(type(value), "a number")
