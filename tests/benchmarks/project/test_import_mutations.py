"""Are constants, defaults and tables changed one at a time, and is each change Python that says something else?"""

from __future__ import annotations

import ast

from perfmodel.benchmarks.project.mutation.import_time import import_mutations

SOURCE = """
from typing import Final, TypeAlias
Operator: TypeAlias = int | float
SHARE: Final = 0.5
TABLE: Final = {"a": (1, 2), "b": (True, 3.0)}
NAMES = ("x", "y")
class Kernel:
    calls: int = 1
def seconds(size, *, busy=0.0):
    return size * 2.0
"""


def test_each_kind_of_value_is_changed_and_no_equation() -> None:
    """Numbers by a tenth or one, entries gone or exchanged, defaults; neither types, nor names of parts, nor functions."""
    found = [each.key.removeprefix("m.py: ") for each in import_mutations("m.py", SOURCE)]
    assert [each for each in found if each.startswith("SHARE")] == ["SHARE = 0.5 -> 0.55", "SHARE = 0.5 -> 0.45"]
    assert {"Kernel.calls = 1 -> 2", "Kernel.calls = 1 -> 0", "seconds(busy) = 0.0 -> 0.1"} <= set(found)
    assert {'TABLE = "a": (1, 2), -> ', "TABLE = True -> False", "TABLE = 1, 2 -> 2, 1", "TABLE = , 2 -> ,"} <= set(found)
    assert not [each for each in found if each.startswith(("Operator", "NAMES")) or "2.0" in each]


def test_what_is_changed_is_python_that_says_something_else() -> None:
    """Also where a comma closes a table, or a tuple keeps one entry."""
    for each in import_mutations("m.py", SOURCE):
        assert ast.dump(ast.parse(each.applied(SOURCE))) != ast.dump(ast.parse(SOURCE)), each
