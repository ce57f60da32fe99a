"""What Sphinx loads: the makers of fences, and the JSON Schemas that the site offers for download."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from perfmodel.benchmarks.project.site import equations, evidence, keys, other_tools, program, typed_commands
from perfmodel.benchmarks.project.site.fences import Maker, expanded
from perfmodel.exchange.output import write_text
from perfmodel.exchange.run_schema import run_schema
from perfmodel.report.json.schemas import document_names, json_schema

MAKERS: Final[dict[str, Maker]] = {
    "shell": typed_commands.shell,
    "file": typed_commands.file,
    "cookbook": typed_commands.cookbook,
    "keys": keys.keys,
    "columns": keys.columns,
    "csv-columns": keys.csv_columns,
    "commands": program.commands,
    "exit-codes": program.exit_codes,
    "documents": program.documents,
    "functions": program.functions,
    "terms": equations.terms,
    "equations": equations.equations,
    "sources": equations.sources,
    "first-contact": evidence.first_contact,
    "other-tools": other_tools.other_tools,
}
SCHEMAS: Final = "schemas"  # a folder of the site


def setup(app: Any) -> dict[str, Any]:
    """Expand every page as it is read, and write the schemas before any is."""
    app.connect("builder-inited", _write_schemas)
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True}


def _read(app: Any, docname: str, source: list[str]) -> None:
    with TemporaryDirectory() as folder:
        source[0] = expanded(source[0], MAKERS, Path(folder))


def _write_schemas(app: Any) -> None:
    """Beside the page that links to them."""
    folder = Path(app.srcdir) / "reference" / SCHEMAS
    folder.mkdir(parents=True, exist_ok=True)
    documents = {"run": run_schema(), **{name: json_schema(name) for name in document_names()}}
    for name, document in documents.items():
        write_text(folder / f"{name}.json", json.dumps(document, indent=2) + "\n")
