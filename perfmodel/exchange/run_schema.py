"""Which keys a run file may have, as JSON Schema, from the declarations of the specs: an editor checks and completes by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from perfmodel.exchange.replicas import GPUS, PASSES
from perfmodel.exchange.syntax.key_words import key_words
from perfmodel.spec.fields import (
    Choice,
    Choices,
    Flag,
    Grid,
    Number,
    NumberTable,
    Part,
    Rule,
    Text,
    Words,
    is_derived,
    rule_of,
    words_of,
)
from perfmodel.spec.run import RampStage, Run
from perfmodel.units import DIMENSIONS

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
NOTES: Final[Mapping[str, Any]] = {  # keys that stand beside the settings of any part
    "extends": {"type": "string", "description": "A preset, or a file, of which the other keys here differ."},
    "source": {"description": "Where the values here come from that have no source of their own."},
    "sources": {"type": "object", "description": "The same by key path, as fits write it."},
}
OF_STAGES: Final[Mapping[str, Any]] = {
    GPUS: {"description": "GPUs of the stage, from which data_parallel follows."},
    PASSES: {"description": "Micro-batches of each replica in one iteration, from which global_batch_size follows."},
}
OF_RUNS: Final[Mapping[str, Any]] = {
    GPUS: {"description": "GPUs of each ramp stage, from which data_parallel follows."},
    "assumptions": {"type": ["object", "array"], "description": "What is taken for granted: sentences, in a list or by key."},
}


def run_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of a run file.

    >>> run_schema()["properties"]["tensor_parallel"]["description"]
    'GPUs that share every layer, usually those of one node.'
    """
    parts: dict[str, Any] = {}
    top = _object(Run, parts, more=OF_RUNS)
    return {"$schema": DIALECT, "title": "A run file of perfmodel"} | top | {"definitions": parts}


def _object(spec: Any, parts: dict[str, Any], *, more: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with the keys of a spec; where one may extend a preset, none of them has to be there."""
    entries = [entry for entry in fields(spec) if not is_derived(entry)]
    known = {entry.name: _key(spec, entry, parts) for entry in entries}
    moved = {key: {"description": f"Called {path} now."} for key, path in spec.moved_keys.items() if key not in known}
    return {"type": "object", "properties": {**known, **moved, **NOTES, **more}, "additionalProperties": False}


def _key(spec: type, entry: Field[Any], parts: dict[str, Any]) -> dict[str, Any]:
    """One key: what it may hold, what it means, and its default."""
    found = {"description": key_words(spec, entry.name)} | _value(rule_of(entry), parts)
    has_default = entry.default is not MISSING and isinstance(entry.default, str | int | float | bool)
    return found | ({"default": entry.default} if has_default else {})


def _value(rule: Rule, parts: dict[str, Any]) -> dict[str, Any]:
    """What a key may hold: one value, several to choose from in a list, or one with its spread and its source."""
    if isinstance(rule, Choices | Words):
        return _annotated({"type": ["string", "array", "null"]})
    if isinstance(rule, Choice):
        return _annotated({"enum": [*rule.options, *(name for name, _ in rule.other_names)]})
    if isinstance(rule, Flag | Text):
        return _annotated({"type": "boolean"}) if isinstance(rule, Flag) else {"type": "string"}
    return _of_numbers(rule, parts) if isinstance(rule, Number | NumberTable | Grid) else _part(rule, parts)


def _of_numbers(rule: Number | NumberTable | Grid, parts: dict[str, Any]) -> dict[str, Any]:
    """A number, a table of them by name, or a table of lists."""
    match rule:
        case NumberTable():
            return _table(_number(rule.number, parts))
        case Grid():
            return _table({"type": ["array", "string", "object"]})
        case Number():
            return _number(rule, parts)


def _number(rule: Number, parts: dict[str, Any]) -> dict[str, Any]:
    """A number under a rule that many keys share: once among the definitions."""
    lower = f"from {rule.minimum:g}" if rule.above is None else f"above {rule.above:g}"
    whole, none = "whole " * rule.integer, " or null" * rule.optional
    name = f"{whole}{rule.dimension} {lower} to {rule.maximum:g}{none}".replace(" ", "_").replace("+", "")
    parts.setdefault(name, _annotated(_bounded(rule)))
    return {"allOf": [{"$ref": f"#/definitions/{name}"}]}  # draft 7 ignores what stands beside a bare reference


def _bounded(rule: Number) -> dict[str, Any]:
    """A number within its bounds, or a text with a unit."""
    lower = {"minimum": rule.minimum} if rule.above is None else {"exclusiveMinimum": rule.above}
    plain = {"type": "integer" if rule.integer else "number", **lower, "maximum": rule.maximum}
    text = {"type": "string", "description": f"{DIMENSIONS[rule.dimension][0]}, such as {DIMENSIONS[rule.dimension][1]}"}
    return {"anyOf": [plain, text, *([{"type": "null"}] if rule.optional else [])]}


def _annotated(value: dict[str, Any]) -> dict[str, Any]:
    """A value, a list of candidates for it, or a mapping that adds its spread and its source."""
    noted = {"value": value, "spread": {}, "source": {}}
    mapping = {"type": "object", "properties": noted, "required": ["value"], "additionalProperties": False}
    return {"anyOf": [value, {"type": "array", "items": value, "minItems": 1}, mapping]}


def _table(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"anyOf": [value, {"type": "string"}]}}


def _part(rule: Part, parts: dict[str, Any]) -> dict[str, Any]:
    """Another spec: a mapping of its keys, a table or a list of those, or the name of a preset or a file."""
    name = words_of(rule.spec).replace(" ", "_")
    if name not in parts:
        parts[name] = {}  # before its own parts are formed, which may name it
        parts[name] = _object(rule.spec, parts, more=OF_STAGES if rule.spec is RampStage else NOTES)
    one: dict[str, Any] = {"$ref": f"#/definitions/{name}"}
    if rule.shape == "sequence":
        return {"type": "array", "items": one, "minItems": 1}
    if rule.shape == "table":
        return _table(one)
    named = [_annotated({"type": "string"}), {"type": "array"}] if rule.preset else []
    alternatives = [one, *named, *([{"type": "null"}] if rule.optional else [])]
    return {"anyOf": alternatives}
