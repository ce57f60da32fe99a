"""How a spec becomes a mapping, from which exchange/building.py builds it again: runs from Python vary like those in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from perfmodel.spec.fields import Part, Rule, Spec, is_derived, rule_of


def mapping_of(value: Any) -> Any:
    """A spec as a mapping: tables as dictionaries, several words as one text, other sequences as lists, all else as it is."""
    if isinstance(value, Spec):
        entries = [entry for entry in fields(value) if not is_derived(entry)]  # type: ignore[arg-type]
        return {entry.name: _of_field(rule_of(entry), getattr(value, entry.name)) for entry in entries}
    if isinstance(value, Mapping):
        return {key: mapping_of(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and all(isinstance(word, str) for word in value):
        return " ".join(value)  # a list would be candidates
    return [mapping_of(entry) for entry in value] if isinstance(value, tuple) else value


def _of_field(rule: Rule, value: Any) -> Any:
    """A field's value as a mapping has it; of several specs a list, also where there are none."""
    is_sequence = isinstance(rule, Part) and rule.shape == "sequence"
    return [mapping_of(entry) for entry in value] if is_sequence else mapping_of(value)
