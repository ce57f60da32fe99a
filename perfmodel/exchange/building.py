"""How a mapping becomes a spec: by the declarations of its fields (spec/fields.py); errors name the path of the key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TypeVar

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, listed, shown
from perfmodel.exchange.syntax.annotations import SPREAD
from perfmodel.spec.fields import (
    Choice,
    Choices,
    Flag,
    Grid,
    Number,
    NumberTable,
    Part,
    Rule,
    Spec,
    Text,
    Words,
    is_derived,
    rule_of,
    words_of,
)
from perfmodel.units import parse_quantity

S = TypeVar("S", bound=Spec)
MOST_MEMBERS: Final = 500  # of a list, such as the stages of a batch ramp
MOST: Final = {  # of each dimension in SI units: orders of magnitude above what exists, for machines of years to come
    "s": 1e9,  # 30 years
    "days": 1e5,
    "bytes": 1e18,
    "bytes_per_s": 1e17,
    "flop_per_s": 1e20,  # of one GPU
    "W": 1e9,
    "count": 1e20,  # tokens
    "ratio": 1e9,
    "dollars": 1e9,
}


def build(spec: type[S], mapping: Any) -> S:
    """The `spec` that `mapping` describes. Errors: InputError for an unknown, missing or wrong key."""
    if not isinstance(mapping, Mapping):
        raise InputError(f"{shown(mapping)} where the settings of a {words_of(spec)} are needed")
    kind: type = spec
    entries = _entries(kind)
    for key in mapping:
        if key in spec.moved_keys:
            raise InputError(f"unknown key; it is called {spec.moved_keys[key]} now", key=key)
        if key == SPREAD and key not in entries and isinstance(mapping[key], Mapping) and set(mapping[key]) <= set(entries):
            raise InputError(f"a {words_of(spec)} has no spreads; give the value alone", key=", ".join(mapping[key]))
        if key not in entries:
            raise InputError(f"unknown key; {did_you_mean(str(key), entries)}", key=shown(key).strip("'"))
    values = {name: _at(name, rule, mapping[name]) for name, (rule, _) in entries.items() if name in mapping}
    if missing := [name for name, (_, is_needed) in entries.items() if is_needed and name not in values]:
        first, *others = missing
        also = f", and so are {listed(others)}" if others else ""
        raise InputError(f"missing; {_expected(entries[first][0])} is needed{also}", key=first)
    return spec(**values)


@cache
def _entries(spec: type) -> Mapping[str, tuple[Rule, bool]]:
    """The keys that a mapping of a `spec` may have: the rule of each, and whether it must be there."""
    given = [entry for entry in fields(spec) if not is_derived(entry)]
    needed = [entry.default is MISSING and entry.default_factory is MISSING for entry in given]
    return {entry.name: (rule_of(entry), is_needed) for entry, is_needed in zip(given, needed, strict=True)}


def _at(key: str, rule: Rule, value: Any) -> Any:
    try:
        return _value(rule, value)
    except PerfmodelError as error:
        raise error.under(key) from None


def _value(rule: Rule, value: Any) -> Any:
    match rule:
        case Number():
            return _number(rule, value)
        case NumberTable() | Grid():
            return MappingProxyType({name: _entry(rule, name, entry) for name, entry in _table(value).items()})
        case Part():
            return None if value is None and rule.optional else _part(rule, value)
    if isinstance(rule, Choices | Words) and isinstance(value, str | list):
        value = tuple(value.split() if isinstance(value, str) else value)
    if problem := rule.problem(value):
        raise InputError(problem)
    return value


def _part(rule: Part, value: Any) -> Any:
    """The spec of a field, or the table or the sequence of specs."""
    if rule.shape == "one":
        return build(rule.spec, value)
    one = Part(rule.spec, "one", "")
    if rule.shape == "table":
        return MappingProxyType({name: _at(name, one, entry) for name, entry in _table(value).items()})
    return tuple(_at(f"[{index}]", one, entry) for index, entry in enumerate(_sequence(value)))


def _number(rule: Number, value: Any) -> Any:
    if value is None and rule.optional:
        return None
    number = parse_quantity(value, rule.dimension)
    if problem := rule.problem(number) or _beyond_all(number, rule.dimension):
        raise InputError(problem.replace(shown(number), shown(value), 1))
    return int(number) if rule.integer else number


def _beyond_all(number: float, dimension: str) -> str:
    """What is wrong with a number in a file that is larger than anything there is, or ""; equations may take larger ones."""
    most = MOST.get(dimension, math.inf)
    return f"{shown(number)} must be at most {most:g}: there is nothing like it" if number > most else ""


def _entry(rule: NumberTable | Grid, name: str, value: Any) -> Any:
    return _at(name, rule.number, value) if isinstance(rule, NumberTable) else _grid_values(name, value)


def _sequence(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{shown(value)} where a list is needed")
    if len(value) > MOST_MEMBERS:
        raise InputError(f"a list of {len(value):,} is too long; at most {MOST_MEMBERS} are read")
    return value


def _grid_values(name: str, value: Any) -> tuple[float, ...]:
    """Numbers in a list, or in a text such as `512 1024 2048`, which is read faster where there are many."""
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list):
        raise InputError(f"{shown(value)} where a list of numbers is needed", key=name)
    try:
        return tuple(parse_quantity(each, "count") for each in values)
    except PerfmodelError as error:
        raise error.under(name) from None


def _table(value: Any) -> Mapping[str, Any]:
    """A mapping by names, which YAML may have read as numbers."""
    if not isinstance(value, Mapping):
        raise InputError(f"{shown(value)} where a mapping of names is needed")
    return {str(name): entry for name, entry in value.items()}


def _expected(rule: Rule) -> str:
    match rule:
        case Choice(options=options):
            return " or ".join(options)
        case Choices(options=options):
            return f"some of {', '.join(options)}"
        case Part(preset=preset) if preset:
            return f"a preset (perfmodel list {preset}) or a mapping"
        case Number():
            return "a number"
    return {Flag: "true or false", Text: "text", Words: "a list of words"}.get(type(rule), "a mapping")


def _is_one_list(value: Any) -> bool:
    """Whether a list is the words of one field, and not several alternatives, each a list or a text of several words."""
    return isinstance(value, list) and all(isinstance(word, str) and " " not in word for word in value)


def leaves(spec: type, mapping: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The path and the value of every field in `mapping` that takes one value, or one preset."""
    for entry in fields(spec):
        if entry.name not in mapping:
            continue
        value, rule, key = mapping[entry.name], rule_of(entry), f"{path}{entry.name}"
        if isinstance(rule, Words | Choices) and _is_one_list(value):
            continue
        if not isinstance(rule, Part):
            yield key, value
        elif rule.shape == "one" and isinstance(value, Mapping):
            yield from leaves(rule.spec, value, f"{key}.")
        elif rule.shape == "one":
            yield key, value
        elif rule.shape == "sequence" and isinstance(value, list):
            for index, member in enumerate(value):
                if isinstance(member, Mapping):
                    yield from leaves(rule.spec, member, f"{key}[{index}].")
