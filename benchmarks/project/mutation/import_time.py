"""Which small changes of values that a module sets at import tests should notice: constants, defaults and entries of tables.

An equation stands in a function (mutations.py); what it reads stands above it. A number moves by a tenth, or by one where it is
whole; a table loses an entry, or two neighbours change places; what a function or a class takes in silence is another.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from perfmodel.benchmarks.project.mutation.mutations import Mutation, line_starts, other_expressions

SHARE: Final = 0.1  # by which a number is larger or smaller
Span: TypeAlias = tuple[int, int]  # of the source
Change: TypeAlias = tuple[int, int, str]  # what stands in a span of the source from now on


def import_mutations(module: str, source: str) -> list[Mutation]:
    """Every mutation of what a source file evaluates when it is imported, in the order of its lines."""
    text, found = _Text(source, tuple(line_starts(source))), []
    for name, value in _values(ast.parse(source), ""):
        for node in _expressions(value):
            start, end = text.span(node)
            line = source.count("\n", 0, start) + 1
            for low, high, after in [*_of_numbers(node, (start, end)), *_of_tables(node, text)]:
                found.append(
                    Mutation(module=module, line=line, start=low, end=high, before=source[low:high], after=after, of=name)
                )
    return found


@dataclass(frozen=True, slots=True)
class _Text:
    """A source file, and where its lines begin; it is ASCII, so that columns of the tree are characters."""

    source: str
    starts: tuple[int, ...]

    def span(self, node: ast.expr) -> Span:
        """Where an expression stands."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[end_line - 1] + end_column


def _values(tree: ast.AST, within: str) -> Iterator[tuple[str, ast.expr]]:
    """What is evaluated at import, with the name that it goes by: values of names, and defaults of what functions take."""
    for child in ast.iter_child_nodes(tree):
        match child:
            case ast.ClassDef(name=name):
                yield from _values(child, f"{within}{name}.")
            case ast.FunctionDef(name=name, args=taken):
                places = [*taken.posonlyargs, *taken.args]
                some = zip(places[len(places) - len(taken.defaults) :], taken.defaults, strict=True)
                pairs = [*some, *zip(taken.kwonlyargs, taken.kw_defaults, strict=True)]
                yield from ((f"{within}{name}({each.arg})", default) for each, default in pairs if default is not None)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.expr() as value):
                if not (isinstance(kind, ast.Name) and kind.id == "TypeAlias"):
                    yield f"{within}{name}", value
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if not _is_of_types(value) and not name.startswith("__"):
                    yield f"{within}{name}", value


def _is_of_types(value: ast.expr) -> bool:
    """Whether a value is a type: a union, one with its entries in brackets, or a variable for one."""
    match value:
        case ast.BinOp(op=ast.BitOr(), left=ast.Name() | ast.BinOp(), right=ast.Name()) | ast.Subscript():
            return True
        case ast.Call(func=ast.Name(id="TypeVar")):
            return True
    return False


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """An expression and all within it that is evaluated at once."""
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.expr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _expressions(child)


def _of_numbers(node: ast.expr, span: Span) -> Iterator[Change]:
    """Another number, truth value or operator in the place of one."""
    match node:
        case ast.Constant(value=bool()):
            others = list(other_expressions(node))
        case ast.Constant(value=int(value)):
            others = [ast.Constant(value=other) for other in ([value + 1, value - 1] if value > 0 else [value + 1])]
        case ast.Constant(value=float(value)):
            others = [ast.Constant(value=other) for other in ([value * (1 + SHARE), value * (1 - SHARE)] if value else [SHARE])]
        case _:
            others = list(other_expressions(node))
    for other in others:
        text = ast.unparse(ast.fix_missing_locations(other))
        yield *span, text if isinstance(other, ast.Constant | ast.Name | ast.Call) else f"({text})"


def _of_tables(node: ast.expr, text: _Text) -> Iterator[Change]:
    """A table without one of its entries, and with the values of two neighbours in each other's place."""
    match node:
        case ast.Dict(keys=keys, values=values):
            entries = [(text.span(key or value)[0], text.span(value)[1]) for key, value in zip(keys, values, strict=True)]
            yield from _without_one(entries, "")
            yield from _exchanged([value for key, value in zip(keys, values, strict=True) if key is not None], text)
        case ast.Tuple(elts=values) | ast.List(elts=values) | ast.Set(elts=values):
            if not all(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in values):
                end = text.span(values[-1])[1] if values else 0
                is_open = isinstance(node, ast.Tuple) and len(values) == 2 and not text.source[end:].lstrip().startswith(",")
                yield from _without_one([text.span(each) for each in values], "," if is_open else "")
                yield from () if isinstance(node, ast.Set) else _exchanged(values, text)


def _without_one(entries: Sequence[Span], closing: str) -> Iterator[Change]:
    """Each entry is gone, with the comma behind it or before it; `closing` stands behind a tuple of one."""
    for place, (start, end) in enumerate(entries if len(entries) > 1 else ()):
        is_last = place == len(entries) - 1
        yield (entries[place - 1][1], end, closing) if is_last else (start, entries[place + 1][0], "")


def _exchanged(values: Sequence[ast.expr], text: _Text) -> Iterator[Change]:
    """Two neighbours have changed places, where they are not alike."""
    for one, other in pairwise(values):
        if ast.dump(one) != ast.dump(other):
            (start, between), (after, end) = text.span(one), text.span(other)
            yield start, end, text.source[after:end] + text.source[between:after] + text.source[start:between]
