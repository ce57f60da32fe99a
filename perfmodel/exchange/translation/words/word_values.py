"""Is the value of a word what its key in a run, or the fact that it is, can be? Other software's files may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.fields import Flag, Number, Part, Rule, rule_of
from perfmodel.spec.run import Run

LARGEST: Final = 1e15  # of a whole number in a file: more is a slip


@cache
def _facts(path: str) -> Mapping[str, int | None]:
    """The least value of each whole fact; None for facts that are any number from zero on."""
    from pathlib import Path

    table = read_mapping(Path(path))
    whole = {name: int(least) for least, names in table["whole"].items() for name in names.split()}
    return whole | dict.fromkeys(table["any"].split())


def check_fact(name: str, value: Any, *, table: str) -> None:
    """Refuse a value that is no number where the fact is one. Errors: InputError."""
    known = _facts(table)
    if name not in known:
        return
    least = known[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise InputError(f"{shown(value)} is not a number")
    if least is None and value < 0:
        raise InputError(f"{shown(value)} must be at least 0")
    if least is not None and (value != int(value) or value < least or (least < 0 and value == 0)):
        raise InputError(f"{shown(value)} is not a whole number of at least {max(least, 1) if value == 0 else least}")


def check_key(key: str, value: Any) -> None:
    """Refuse a value that a key of a run cannot have, where that is a number or a switch. Errors: InputError."""
    rule = _rule_at(key)
    if not isinstance(rule, Number | Flag):
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(rule, Number) and not (is_number and abs(value) <= LARGEST):
        raise InputError(f"{shown(value)} is not a number")
    if problem := rule.problem(value):
        raise InputError(problem)


@cache
def _rule_at(key: str) -> Rule | None:
    """What the field at a key path of a run takes; None where there is none."""
    spec: type = Run
    *steps, last = key.split(".")
    for step in steps:
        entry = next((each for each in fields(spec) if each.name == step), None)
        rule = rule_of(entry) if entry is not None else None
        if not isinstance(rule, Part):
            return None
        spec = rule.spec
    entry = next((each for each in fields(spec) if each.name == last), None)
    return rule_of(entry) if entry is not None else None
