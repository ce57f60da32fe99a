"""A spec as the mapping that builds it again (exchange/building.py): a run from Python can be varied as one from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from perfmodel.spec.fields import Spec, is_derived


def mapping_of(value: Any) -> Any:
    """Specs and tables as dictionaries, several words as one text, other sequences as lists, everything else as it is."""
    if isinstance(value, Spec):
        return {entry.name: mapping_of(getattr(value, entry.name)) for entry in fields(value) if not is_derived(entry)}  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return {key: mapping_of(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return " ".join(value)  # a list would be candidates
    return [mapping_of(entry) for entry in value] if isinstance(value, tuple) else value
