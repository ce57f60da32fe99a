"""Which small changes of a source file tests should notice: one operator, comparison, constant, bound or term at a time.

Left alone is what no equation has: annotations, docstrings, decorators, imports, texts, and the sentences of errors. A mutation
replaces the text of one expression, so that it can be shown as a person reads it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

OTHER_OPERATORS: Final[Mapping[type, tuple[Any, ...]]] = MappingProxyType(
    {
        ast.Add: (ast.Sub,),
        ast.Sub: (ast.Add,),
        ast.Mult: (ast.Div,),
        ast.Div: (ast.Mult,),
        ast.FloorDiv: (ast.Mult,),
        ast.Mod: (ast.Mult,),
        ast.Pow: (ast.Mult,),
        ast.BitAnd: (ast.BitOr,),
        ast.BitOr: (ast.BitAnd,),
        ast.Lt: (ast.LtE,),
        ast.LtE: (ast.Lt,),
        ast.Gt: (ast.GtE,),
        ast.GtE: (ast.Gt,),
        ast.Eq: (ast.NotEq,),
        ast.NotEq: (ast.Eq,),
        ast.Is: (ast.IsNot,),
        ast.IsNot: (ast.Is,),
        ast.In: (ast.NotIn,),
        ast.NotIn: (ast.In,),
        ast.And: (ast.Or,),
        ast.Or: (ast.And,),
    }
)
OTHER_CALLS: Final = MappingProxyType(
    {
        "maximum": "minimum",
        "minimum": "maximum",
        "max": "min",
        "min": "max",
        "ceil": "floor",
        "floor": "ceil",
        "any": "all",
        "all": "any",
        "anywhere": "everywhere",
        "everywhere": "anywhere",
    }
)
CHOICES: Final = ("where", "chosen")  # calls of a condition and two values
SUMS_AND_PRODUCTS: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div)
UNTOUCHED: Final = (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert, ast.AnnAssign, ast.arg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One change of one file: the text from `start` to `end` becomes `after`."""

    module: str  # as in count/flops.py
    line: int
    start: int
    end: int
    before: str
    after: str
    of: str = ""  # the name whose value it is, where it is set at import

    def applied(self, source: str) -> str:
        """The source with the change."""
        return source[: self.start] + self.after + source[self.end :]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}  {self._whose}{_one_line(self.before)}  ->  {_one_line(self.after)}"

    @property
    def key(self) -> str:
        """What stays the same when lines move."""
        return f"{self.module}: {self._whose}{_one_line(self.before)} -> {_one_line(self.after)}"

    @property
    def _whose(self) -> str:
        return f"{self.of} = " if self.of else ""


def mutations(module: str, source: str) -> list[Mutation]:
    """Every mutation of a source file, in the order of its lines."""
    tree = ast.parse(source)
    starts = line_starts(source)
    found = []
    for node in _touched(tree):
        before = ast.get_source_segment(source, node)
        if before is None or not isinstance(node, ast.expr) or node.end_lineno is None or node.end_col_offset is None:
            continue
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        for other in other_expressions(node):
            text = ast.unparse(ast.fix_missing_locations(other))
            after = text if isinstance(other, ast.Constant | ast.Name | ast.Call) else f"({text})"
            found.append(Mutation(module=module, line=node.lineno, start=start, end=end, before=before, after=after))
    return found


def _touched(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it that belong to an equation."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.AnnAssign) and child.value is not None:
            yield child.value
            yield from _touched(child.value)
        if isinstance(child, UNTOUCHED) or _is_text(child):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (child in node.decorator_list or child is _returns(node)):
            continue
        yield child
        yield from _touched(child)


def _returns(node: ast.FunctionDef | ast.ClassDef) -> ast.expr | None:
    return node.returns if isinstance(node, ast.FunctionDef) else None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def other_expressions(node: ast.expr) -> Iterator[ast.expr]:
    """What may stand in the place of an expression."""
    match node:
        case ast.BinOp():
            yield from _other_sums(node)
        case ast.Compare() | ast.BoolOp():
            yield from _other_conditions(node)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test=test, body=orelse, orelse=body)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(value=not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value=value + 1)
        case ast.Call():
            yield from _other_calls(node)


def _other_sums(node: ast.BinOp) -> Iterator[ast.expr]:
    """Another operator between two terms, and each term without the other where neither is what the other is taken of."""
    for other in OTHER_OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(left=node.left, op=other(), right=node.right)
    if isinstance(node.op, SUMS_AND_PRODUCTS):
        yield node.left
    if isinstance(node.op, ast.Add | ast.Mult):
        yield node.right


def _other_conditions(node: ast.Compare | ast.BoolOp) -> Iterator[ast.expr]:
    """Another comparison, or `or` for `and`."""
    if isinstance(node, ast.BoolOp):
        yield from (ast.BoolOp(op=other(), values=node.values) for other in OTHER_OPERATORS[type(node.op)])
        return
    for place, op in enumerate(node.ops):
        for other in OTHER_OPERATORS.get(type(op), ()):
            ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield ast.Compare(left=node.left, ops=ops, comparators=node.comparators)


def _other_calls(call: ast.Call) -> Iterator[ast.Call]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    if name in OTHER_CALLS:
        other = copy.deepcopy(call)
        if isinstance(other.func, ast.Attribute):
            other.func.attr = OTHER_CALLS[name]
        elif isinstance(other.func, ast.Name):
            other.func.id = OTHER_CALLS[name]
        yield other
    if name in CHOICES and len(call.args) == 3:
        condition, yes, no = call.args
        yield ast.Call(func=call.func, args=[condition, no, yes], keywords=[])


def line_starts(source: str) -> list[int]:
    """Where each line begins; the source is ASCII, so that columns of the tree are characters."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _one_line(text: str) -> str:
    return " ".join(text.split())
