"""References of the program: every command with its options, exit codes, JSON documents and functions of Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import typer

import perfmodel
from perfmodel import errors
from perfmodel.benchmarks.project.site.fences import Fence, code, escaped, table
from perfmodel.commands.app import COMMANDS, PANELS, program
from perfmodel.commands.console import STOPPED
from perfmodel.report.json.schemas import KeyDeclaration, document, document_names, sentence, types_in

EXAMPLES: Final = "Examples:"


def commands(fence: Fence) -> str:
    """Every command: what it does, examples, and its options by panel, as --help has them."""
    made: Any = typer.main.get_command(program())
    chapters = [(panel, [made.commands[name] for name in names]) for panel, names in PANELS.items()]
    return "\n".join(part for panel, found in chapters for part in [f"## {panel}\n", *map(_command, found)])


def _command(command: Any) -> str:
    words, _, examples = (command.help or "").partition(EXAMPLES)
    lines = [line for line in examples.splitlines() if line.strip()]
    shown = "```sh\n" + "\n".join(lines) + "\n```\n" if lines else ""
    given = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    panels = list(dict.fromkeys(getattr(each, "rich_help_panel", None) or "" for each in given))
    rows = [
        (_spelled(each), _default(each), escaped(each.help or ""))
        for panel in panels
        for each in given
        if _panel(each) == panel
    ]
    return (
        f"### perfmodel {command.name}\n\n{escaped(words.strip())}\n\n{shown}\n{table(('option', 'default', 'meaning'), rows)}"
    )


def _panel(given: Any) -> str:
    return getattr(given, "rich_help_panel", None) or ""


def _spelled(given: Any) -> str:
    """An argument or an option as a person types it."""
    if given.param_type_name == "argument":
        return code(given.metavar or given.name.upper())
    value = "" if given.is_flag else f" {given.metavar or 'VALUE'}"
    return ", ".join(code(f"{name}{value}") for name in (*given.opts, *given.secondary_opts))


def _default(given: Any) -> str:
    if given.required:
        return "*needed*"
    value = given.default
    return code(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "" else ""


def exit_codes(fence: Fence) -> str:
    """What a command ended with, from the classes of errors."""
    kinds = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.PerfmodelError)]
    own = {each.exit_code: inspect.getdoc(each) or "" for each in kinds if "exit_code" in vars(each) and each.exit_code > 1}
    rows = {
        0: "Yes: it fits, the bar is met.",
        1: "No: it does not fit, a bar is missed.",
        **own,
        STOPPED: "Stopped by Ctrl-C.",
    }
    return table(("code", "meaning"), [(str(number), escaped(words)) for number, words in sorted(rows.items())])


def documents(fence: Fence) -> str:
    """The keys of every JSON document, with a link to its JSON Schema."""
    order = [*COMMANDS]
    names = sorted(document_names(), key=lambda name: (order.index(document(name).command.split()[1]), name))
    return "\n".join(part for name in names for part in _document(name))


def _document(name: str) -> Iterator[str]:
    found = document(name)
    command, _, more = found.command.partition(", ")
    yield f"## {found.title}\n\n`{command}`{f', {more}' if more else ''} ({{download}}`JSON Schema <schemas/{name}.json>`)\n"
    yield _keys(found.keys)
    for part, keys in found.definitions.items():
        yield f"**{part.replace('_', ' ')}**\n\n{_keys(keys)}"


def _keys(keys: tuple[KeyDeclaration, ...]) -> str:
    rows = [
        (code(key.name) + (" (optional)" if key.optional else ""), _type(key.type), escaped(sentence(key.words)))
        for key in keys
    ]
    return table(("key", "type", "meaning"), rows)


def _type(kind: str) -> str:
    """A type in words; names of definitions without underscores."""
    words = kind
    for each in types_in(kind):
        words = re.sub(rf"\b{each}\b", each.replace("_", " "), words)
    return words


def functions(fence: Fence) -> str:
    """What `import perfmodel as pm` gives: functions with their signatures, results with what they can do."""
    names = {name: getattr(perfmodel, name) for name in perfmodel.__all__}
    made = [_function(name, each) for name, each in names.items() if inspect.isfunction(each)]
    kinds = [_kind(name, each) for name, each in names.items() if inspect.isclass(each)]
    return "\n".join(["## Functions\n", *made, "## Results and errors\n", *kinds])


def _function(name: str, made: Any) -> str:
    signature = re.sub(r"\bperfmodel(?:\.\w+)*\.", "", f"{name}{unquoted(str(inspect.signature(made)))}")
    return f"### {name}\n\n```python\n{_wrapped(signature)}\n```\n\n{prose(inspect.getdoc(made) or '')}\n"


def unquoted(signature: str) -> str:
    """A signature with its types as they are written; texts that are defaults keep their quotes.

    >>> unquoted("(run: 'RunSource', engine: 'str' = 'vllm') -> 'Plan'")
    "(run: RunSource, engine: str = 'vllm') -> Plan"
    """
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)


def _wrapped(signature: str) -> str:
    """A signature on one line, or with a line a parameter."""
    if len(signature) <= 100:
        return signature
    head, _, rest = signature.partition("(")
    inside, _, result = rest.rpartition(") -> ")
    parameters = re.split(r", (?=\w+:|\*,)", inside.replace("*, ", "*, "))
    return f"{head}(\n" + "".join(f"    {each},\n" for each in parameters) + f") -> {result}"


def _kind(name: str, made: Any) -> str:
    members = [
        (
            code(f"{member}()" if callable(each) else member),
            escaped((inspect.getdoc(each) or "").split("\n\n")[0].replace("\n", " ")),
        )
        for member, each in inspect.getmembers(made)
        if not member.startswith("_") and (inspect.isfunction(each) or isinstance(each, property)) and inspect.getdoc(each)
    ]
    listed = table(("member", "what it is"), members) if members else ""
    return f"### {name}\n\n{prose(inspect.getdoc(made) or '')}\n\n{listed}"


def prose(text: str) -> str:
    """A docstring as Markdown: paragraphs as they are, examples and tables of words as blocks."""
    blocks = re.split(r"\n{2,}", text.strip())
    return "\n\n".join(_block(each) for each in blocks)


def _block(text: str) -> str:
    if text.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    if re.search(r"^\s|\S  +\S", text, re.MULTILINE):  # aligned: a table of words
        return f"```none\n{text}\n```"
    return escaped(text)
