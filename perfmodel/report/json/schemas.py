"""What keys a JSON document has, as JSON Schema: one declaration behind `perfmodel schema`, the tests and the documentation.

A file of data/schemas/ declares one document, a line a key:

    mfu: number; model FLOPs over peak FLOPs
    days: number or null; days of the stage; null where the run does not say
    operators?: list of operator; only with --verbose

A type is number, integer, string, boolean, null, any, interval (two numbers), the name of a definition, `list of` or `map of`
another, or several with `or` between them. A key with a question mark may be missing; all others are there, and no others.
`..head:` stands for all keys of the definition `head`, `<axis>` in a key for each name of a table of the code, `<any>` for keys
that only the question knows. shared.yaml has definitions for all documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Final

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.light_dataclass import dataclass
from perfmodel.report.json.explanation import SHAPES
from perfmodel.spec.axes import REPORTED
from perfmodel.spec.run import SETTINGS
from perfmodel.timing.breakdown import PARTS, SOMETIMES
from perfmodel.timing.serving.forward_pass import PARTS as SERVING_PARTS

FOLDER: Final = DATA / "schemas"
SHARED: Final = "shared"
DIALECT: Final = "http://json-schema.org/draft-07/schema#"
INTERVAL: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
ANY: Final = "<any>"
TABLES: Final[Mapping[str, tuple[str, ...]]] = {  # what stands for <name> in a key
    "axis": tuple(axis.name for axis in REPORTED),
    "part": tuple(part.removesuffix("_s") for part in PARTS if part not in SOMETIMES),
    "memory": tuple(part.name.removesuffix("_bytes") for part in fields(MemoryBytes)),
    "setting": SETTINGS,
    "size": tuple(dict.fromkeys(size for sizes in SHAPES.values() for size in sizes)),
    "serving": SERVING_PARTS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDeclaration:
    """One key of a document or of a part of it."""

    name: str
    type: str
    words: str
    optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDeclaration:
    """One JSON document: its keys, and the definitions that it uses, by name."""

    name: str
    title: str
    command: str
    keys: tuple[KeyDeclaration, ...]
    definitions: Mapping[str, tuple[KeyDeclaration, ...]]


@cache
def document_names() -> tuple[str, ...]:
    """The names of all declared documents, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != SHARED))


@cache
def document(name: str) -> DocumentDeclaration:
    """The declaration of one document. Errors: InputError for an unknown name."""
    if name not in document_names():
        raise InputError(f"{shown(name)} is not a JSON document; {did_you_mean(name, ('run', *document_names()))}")
    own, shared = (read_mapping(FOLDER / f"{each}.yaml") for each in (name, SHARED))
    known = shared["definitions"] | own.get("definitions", {})
    keys = tuple(_keys(own["keys"], known))
    used = dict(_used(keys, known))
    return DocumentDeclaration(name=name, title=own["title"], command=own["command"], keys=keys, definitions=used)


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 7) of one document.

    >>> json_schema("list")["properties"]["schema_version"]
    {'type': 'integer', 'description': 'Version of these keys, 1 now.'}
    """
    found = document(name)
    head = {"$schema": DIALECT, "title": f"{found.title}: {found.command}"}
    parts = {each: _object(keys, found.definitions) for each, keys in found.definitions.items()}
    return head | _object(found.keys, found.definitions) | ({"definitions": parts} if parts else {})


def sentence(words: str) -> str:
    """The words of a declaration as a sentence.

    >>> sentence("name of the run")
    'Name of the run.'
    """
    return words[:1].upper() + words[1:] + "."


def _keys(declared: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[KeyDeclaration]:
    """Every key of a declared mapping, with the keys of what it includes."""
    for key, text in declared.items():
        if key.startswith(".."):
            yield from _keys(known[key[2:]], known)
            continue
        kind, _, words = text.partition("; ")
        name, optional = key.removesuffix("?"), key.endswith("?")
        for each in _names(name):
            yield KeyDeclaration(name=each, type=kind, words=words, optional=optional)


def _names(key: str) -> tuple[str, ...]:
    """A key, or one for each name of the table that it speaks of."""
    found = re.search(r"<(\w+)>", key)
    if found is None or key == ANY:
        return (key,)
    return tuple(key.replace(found[0], name) for name in TABLES[found[1]])


def _used(keys: tuple[KeyDeclaration, ...], known: Mapping[str, Any]) -> Iterator[tuple[str, tuple[KeyDeclaration, ...]]]:
    """The definitions that some keys name, and those that these name, each before what it uses."""
    for key in keys:
        for name in types_in(key.type):
            if name in known:
                inside = tuple(_keys(known[name], known))
                yield name, inside
                yield from _used(inside, known)


def types_in(kind: str) -> list[str]:
    """The plain types and definitions that a type is made of.

    >>> types_in("list of map of number or null")
    ['number', 'null']
    """
    return [re.sub(r"^(?:(?:list|map) of )+", "", each) for each in kind.split(" or ")]


def _object(keys: tuple[KeyDeclaration, ...], known: Mapping[str, Any]) -> dict[str, Any]:
    """An object with these keys and no others, but for those that only the question knows."""
    named = [key for key in keys if key.name != ANY]
    free = [_type(key.type, known) for key in keys if key.name == ANY]
    return {
        "type": "object",
        "properties": {key.name: _type(key.type, known) | {"description": sentence(key.words)} for key in named},
        "required": [key.name for key in named if not key.optional],
        "additionalProperties": free[0] if free else False,
    }


def _type(kind: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one type."""
    alternatives = kind.split(" or ")
    if len(alternatives) > 1:
        return {"anyOf": [_type(each, known) for each in alternatives]}
    shape, _, inside = kind.partition(" of ")
    if shape == "list":
        return {"type": "array", "items": _type(inside, known)}
    if shape == "map":
        return {"type": "object", "additionalProperties": _type(inside, known)}
    if kind in known:
        return {"allOf": [{"$ref": f"#/definitions/{kind}"}]}  # draft 7 ignores what stands beside a bare reference
    return {"interval": INTERVAL, "any": {}}.get(kind, {"type": kind})
