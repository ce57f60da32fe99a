"""`perfmodel schema`: the keys of run files and of JSON output, as JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.commands.console import TABLES_OR_JSON, check_ending, emit_json, emit_table
from perfmodel.commands.options import FORM

if TYPE_CHECKING:
    from rich.console import RenderableType

RUN = "run"


def schema(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="run for run files, or the name of a document. Default: list them.")
    ] = "",
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to FILE instead of standard output.", rich_help_panel=FORM),
    ] = None,
) -> None:
    """Print the keys of a run file, or of the JSON that a command prints, as JSON Schema (draft 7).

    An editor that reads JSON Schema checks run files by it and completes their keys.

    Examples:
    perfmodel schema

    perfmodel schema run -o run.schema.json

    perfmodel schema predict
    """
    if name:
        check_ending(output, {".json": "json"})
        emit_json(_schema(name), output)
    elif check_ending(output, TABLES_OR_JSON) == "json":
        emit_json(_names(), output)
    else:
        emit_table(_list(), output)


def _schema(name: str) -> dict[str, Any]:
    if name == RUN:
        from perfmodel.exchange.run_schema import run_schema

        return run_schema()
    from perfmodel.report.json.schemas import json_schema

    return json_schema(name)


def _names() -> dict[str, str]:
    """What there are schemas of, by name."""
    from perfmodel.report.json.schemas import document, document_names

    return {RUN: "a run file", **{each: document(each).command for each in document_names()}}


def _list() -> RenderableType:
    from perfmodel.report.text.terminal import section

    return section("JSON Schema of", list(_names().items()))
