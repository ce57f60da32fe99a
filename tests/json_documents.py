"""What commands print as JSON, held against its published schema: by the fixture `run`, whatever a test asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import fastjsonschema

from perfmodel.report.json.schemas import document, document_names, json_schema

ERROR = "error"  # the document of what went wrong, whatever the command


def check_json(command: str, text: str) -> None:
    """Raise AssertionError where what a command printed is not what its schema says."""
    found = json.loads(text)
    name = document_of(command, found)
    try:
        validator(name)(found)
    except fastjsonschema.JsonSchemaException as error:
        raise AssertionError(f"perfmodel/data/schemas/{name}.yaml does not say what {command} prints: {error}") from None


def document_of(command: str, found: Any) -> str:
    """The declared document of a command that has most keys in common with what it printed."""
    if isinstance(found, dict) and set(found) == {key.name for key in document(ERROR).keys}:
        return ERROR
    names = documents_of(command)
    assert names, f"perfmodel/data/schemas has no document of {command} --json"
    keys = {name: {key.name for key in document(name).keys} for name in names}
    return max(names, key=lambda name: (len(keys[name] & {*found}), -len(keys[name])))


@cache
def documents_of(command: str) -> Sequence[str]:
    """The names of the documents that a command prints."""
    return [name for name in document_names() if document(name).command.startswith(f"perfmodel {command} ")]


@cache
def validator(name: str) -> Callable[[Any], Any]:
    """What checks one document."""
    checks: Callable[[Any], Any] = fastjsonschema.compile(json_schema(name), use_default=False)
    return checks
