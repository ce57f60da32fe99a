"""References of what files may hold: the keys of run files by part, and the columns of tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

from perfmodel.benchmarks.project.site.fences import Fence, code, escaped, table
from perfmodel.benchmarks.project.site.typed_commands import output
from perfmodel.exchange.presets import KINDS, cluster_priors
from perfmodel.exchange.run_assumptions import STACK_SETTINGS
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.syntax.key_words import key_words
from perfmodel.report.json.schemas import document, document_names, sentence
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
from perfmodel.units import DIMENSIONS

SAID_OTHERWISE: Final = {  # what stands for keys that a file leaves out, where no default of their declaration does
    "Run": {"name": "*its file*", **dict.fromkeys(STACK_SETTINGS, "*its stack*")},
    "Cluster": dict.fromkeys(cluster_priors()[0], "*a prior*"),
}
DOCS: Final = Path(__file__).resolve().parents[3] / "docs"


def keys(fence: Fence) -> str:
    """Every key of a spec (module:Class) and of the parts below it, a table each; parts with presets have their own pages."""
    (name, *_) = fence.words
    return "\n".join(_tables(resolve_name(name), fence.option("prefix"), fence.option("title"), set()))


def _tables(spec: Any, prefix: str, title: str, seen: set[Any]) -> Iterator[str]:
    """The table of a spec, then those of its parts under their paths; each spec once."""
    seen.add(spec)
    entries = [entry for entry in fields(spec) if not is_derived(entry)]
    yield f"## {title or code(prefix.rstrip('.'))}\n"
    yield table(("key", "value", "default", "meaning"), [_row(spec, entry) for entry in entries])
    for entry in entries:
        rule = rule_of(entry)
        if isinstance(rule, Part) and not rule.preset and rule.spec not in seen:
            place = {"one": "", "table": "NAME.", "sequence": ""}[rule.shape]
            index = "[N]" if rule.shape == "sequence" else ""
            yield from _tables(rule.spec, f"{prefix}{entry.name}{index}.{place}", "", seen)


def _row(spec: type, entry: Field[Any]) -> tuple[str, ...]:
    default = SAID_OTHERWISE.get(spec.__name__, {}).get(entry.name, "")
    return code(entry.name), _value(rule_of(entry)), default or _default(entry), escaped(key_words(spec, entry.name))


def _value(rule: Rule) -> str:
    """What a key may hold, in words."""
    if isinstance(rule, Number | NumberTable):
        return _number(rule) if isinstance(rule, Number) else f"{_number(rule.number)}, by name"
    if isinstance(rule, Choice | Choices):
        return ("" if isinstance(rule, Choice) else "some of ") + ", ".join(map(code, rule.options))
    plain = {Flag: "`true`, `false`", Text: "text", Words: "words", Grid: "lists of numbers, by name"}
    return _part(rule) if isinstance(rule, Part) else plain[type(rule)]


def _number(rule: Number) -> str:
    """A number with its bounds and an example with a unit."""
    what = "whole number" if rule.integer else DIMENSIONS[rule.dimension][0]
    lower = (
        f"above {rule.above:g}" if rule.above is not None else f"from {rule.minimum:g}" if rule.minimum or rule.integer else ""
    )
    upper = f"to {rule.maximum:g}" if rule.maximum < 1e6 else ""
    return " ".join(filter(None, (what, lower, upper)))


def _part(rule: Part) -> str:
    what = words_of(rule.spec)
    if rule.shape == "sequence":
        return f"list of {what}s"
    named = f", or a preset (`perfmodel list {rule.preset}`)" if rule.preset in KINDS else ""
    return f"{what}{'s by name' if rule.shape == 'table' else ''}{named}"


def _default(entry: Field[Any]) -> str:
    """The default as a file would have it; what must be given is said in italics."""
    if entry.default is MISSING and entry.default_factory is MISSING:
        return "*needed*"
    if entry.default is MISSING or entry.default is None or entry.default == ():
        return ""
    value = entry.default
    return code(str(value).lower() if isinstance(value, bool) else str(value)) if isinstance(value, str | int | float) else ""


def columns(fence: Fence) -> str:
    """The columns of tables of measured runs, with the tables that have each."""
    words = read_mapping(DOCS / fence.words[0])
    return "\n".join(
        f"## {name}\n\n{table(('column', 'meaning'), [(code(column), escaped(text)) for column, text in entries.items()])}"
        for name, entries in words.items()
    )


def csv_columns(fence: Fence) -> str:
    """The columns that commands print with --csv, as they print them, with the words of the JSON key of the same name."""
    return "\n".join(_printed_columns(line, fence.folder) for line in fence.body.splitlines() if line.strip())


def _printed_columns(command: str, folder: Path) -> str:
    head = next(csv.reader(io.StringIO(output(f"{command} --csv", folder))))
    words = words_of_keys(command.split()[1])
    rows = [(code(column), escaped(words.get(column, ""))) for column in head]
    return f"## {command.split()[1]}\n\n`{command} --csv`\n\n{table(('column', 'meaning'), rows)}"


def words_of_keys(command: str) -> dict[str, str]:
    """What JSON keys mean, by name: those of the documents of a command before those of all others."""
    own = [name for name in document_names() if document(name).command.startswith(f"perfmodel {command} ")]
    found: dict[str, str] = {}
    for name in (*own, *document_names()):
        declared = document(name)
        for key in (*declared.keys, *(each for part in declared.definitions.values() for each in part)):
            found.setdefault(key.name, sentence(key.words))
    return found
