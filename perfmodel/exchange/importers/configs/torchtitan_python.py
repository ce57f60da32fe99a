"""Python configurations of torchtitan: a function that returns a Trainer.Config; its syntax is read, nothing is run.

Read are the arguments of `Trainer.Config(section=SectionConfig(key=..))`, the assignments `config.section.key = ..` to what
another configuration gave, and `model_registry(flavor, converters=[..])`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any, Final

from perfmodel.errors import InputError
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.torchtitan import TORCHTITAN, from_keys
from perfmodel.exchange.translation.words.word_table import word_table
from perfmodel.exchange.translation.words.word_values import LARGEST

NAME: Final = "torchtitan Python configuration"
OWN: Final = re.compile(r"^(?:from|import) torchtitan\b", re.MULTILINE)
RESULT: Final = "Trainer.Config"
FUNCTION: Final = re.compile(r"^def \w+\(.*Trainer\.Config\s*:|Trainer\.Config\(", re.MULTILINE)
FAMILY: Final = re.compile(r"torchtitan\.models\.(\w+)")
REGISTRY: Final = "model_registry"
MODEL: Final = "model_spec"
MOST_CHARACTERS: Final = 500_000


def _is_configuration(document: Document) -> bool:
    text = document.text
    return not document.mapping and bool(OWN.search(text) and FUNCTION.search(text)) and len(text) <= MOST_CHARACTERS


def _convert(document: Document) -> Conversion:
    try:
        tree = ast.parse(document.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not valid Python: {str(error)[:100]}") from None
    functions = [each for each in tree.body if isinstance(each, ast.FunctionDef) and _gives_config(each)]
    if len(functions) != 1:
        names = ", ".join(each.name for each in functions[:5]) or "none"
        raise InputError(f"one function that returns a {RESULT} is read; this file has {names}: keep the one that is meant")
    given = {"module": _family(tree), **dict(_assigned(functions[0]))}
    return from_keys(given, format_name=NAME, name=document.path.stem if document.path else functions[0].name)


def _gives_config(function: ast.FunctionDef) -> bool:
    return function.returns is not None and ast.unparse(function.returns).strip("'\"") == RESULT


def _family(tree: ast.Module) -> str:
    """The family of models whose module the file imports; empty where it imports none."""
    modules = (each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom))
    return next((found[1] for module in modules if (found := FAMILY.match(module)) and found[1] != "common"), "")


def _assigned(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    """Keys with their values, in the order in which the function sets them."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _name(node.func) == REGISTRY:
            yield from _model(node)
    for statement in function.body:
        if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Call):
            yield from _arguments(statement.value, "")
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            yield from _assignment(statement.targets[0], statement.value)


def _assignment(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, Any]]:
    name = ast.unparse(target)
    if "." in name:
        yield from _value(name.partition(".")[2], value)
    elif isinstance(value, ast.Call) and _name(value.func) == RESULT:
        yield from _arguments(value, "")
    elif isinstance(value, ast.Call) and not value.args and not value.keywords:
        yield "config", _name(value.func)  # of another configuration


def _model(call: ast.Call) -> Iterator[tuple[str, Any]]:
    """The flavor, and the converters that make products of few bits."""
    if call.args and isinstance(call.args[0], ast.Constant):
        yield "model.flavor", str(call.args[0].value)
    for keyword in call.keywords:
        if keyword.arg == "converters" and isinstance(keyword.value, ast.List):
            calls = [each for each in keyword.value.elts if isinstance(each, ast.Call)]
            yield "model.converters", [_name(each.func).partition(".")[0].lower() for each in calls]


def _arguments(call: ast.Call, path: str) -> Iterator[tuple[str, Any]]:
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield from _value(f"{path}.{keyword.arg}" if path else keyword.arg, keyword.value)


def _value(path: str, value: ast.expr) -> Iterator[tuple[str, Any]]:
    """A key with its value: a constant, a list of constants, a product of numbers; of a call its class, and its arguments."""
    if path == MODEL:
        return
    if isinstance(value, ast.Call):
        if path in word_table(TORCHTITAN.table).read:
            yield path, _name(value.func)
        yield from _arguments(value, path) if "." not in path else [(path, _name(value.func))]
        return
    known, found = _constant(value)
    if path == "activation_checkpoint" and known and found is None:
        found = "none"
    yield path, found if known else ast.unparse(value)


def _constant(value: ast.expr) -> tuple[bool, Any]:
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        (_, left), (_, right) = _constant(value.left), _constant(value.right)
        is_number = all(isinstance(each, int) and abs(each) <= LARGEST for each in (left, right))
        return (True, left * right) if is_number else (False, None)
    try:
        return True, ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False, None


def _name(function: ast.expr) -> str:
    return ast.unparse(function)


IMPORTER: Final = run_importer(name=NAME, recognises=_is_configuration, convert=_convert)
